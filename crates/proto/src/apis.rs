api!("kv-admin", kv_admin);
api!("metrics", metrics_api);
