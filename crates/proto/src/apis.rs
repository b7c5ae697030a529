api!("envoy", envoy);
api!("gateway", gateway);
api!("kv-admin", kv_admin);
