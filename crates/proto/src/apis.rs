api!("containerd", containerd);
api!("cri", cri);
api!("envoy", envoy);
api!("etcd", etcd);
api!("gateway", gateway);
api!("image", image);
api!("kv-admin", kv_admin);
api!("scheduler", scheduler);
