api!("containerd", containerd);
api!("cri", cri);
api!("image", image);
api!("kv-admin", kv_admin);
