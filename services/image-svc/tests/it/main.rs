//! Black-box tests of image-svc over real sockets.

mod build;
mod content;
mod crash;
mod cri;
mod hostile_tar;
mod images;
mod limits;
mod registry;
mod server;
mod skopeo;
mod snapshots;
mod startup;
mod unpack;
