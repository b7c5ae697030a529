&[
    include_bytes!("gen/envoy/descriptors.bin"),
    include_bytes!("gen/gateway/descriptors.bin"),
    include_bytes!("gen/kv_admin/descriptors.bin"),
]
