api!("kv-admin", kv_admin);
