api!("containerd", containerd);
api!("cri", cri);
api!("etcd", etcd);
api!("image", image);
api!("kv-admin", kv_admin);
