api!("containerd", containerd);
api!("cri", cri);
api!("dns", dns);
api!("envoy", envoy);
api!("etcd", etcd);
api!("gateway", gateway);
api!("image", image);
api!("kv-admin", kv_admin);
