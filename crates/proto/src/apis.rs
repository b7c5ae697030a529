api!("etcd", etcd);
api!("kv-admin", kv_admin);
