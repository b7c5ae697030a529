//! Wire out: the image service.

mod image_service;

pub use image_service::ImageService;
