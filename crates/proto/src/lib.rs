//! Generated protobuf messages and gRPC stubs, one module per API.
//!
//! The schemas live in `proto/`, one folder per package. `cargo xtask gen-protos` writes the code under
//! `src/gen`; it is committed, and a test in xtask fails when it is out of date. Each module also holds the
//! `FILE_DESCRIPTOR_SET` that server reflection serves.
#![allow(clippy::all, clippy::pedantic, rustdoc::all)]

macro_rules! api {
    ($feature:literal, $name:ident) => {
        #[cfg(feature = $feature)]
        pub mod $name {
            include!(concat!("gen/", stringify!($name), "/mod.rs"));
            /// Serialised `FileDescriptorSet` of this API, for gRPC server reflection.
            pub const FILE_DESCRIPTOR_SET: &[u8] =
                include_bytes!(concat!("gen/", stringify!($name), "/descriptors.bin"));
        }
    };
}

include!("apis.rs");

/// The descriptors of every API of the suite, whichever features are on: what a reflection service that speaks
/// for the whole suite holds.
pub const ALL_FILE_DESCRIPTOR_SETS: &[&[u8]] = include!("descriptors.rs");
