api!("containerd", containerd);
api!("cri", cri);
api!("engine", engine);
api!("image", image);
api!("kv-admin", kv_admin);
