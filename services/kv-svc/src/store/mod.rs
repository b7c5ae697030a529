//! What survives a crash: the key space in RocksDB, and the log the key space is rebuilt from.

pub mod bbolt;
pub mod export;
pub mod faulty;
pub mod memory;
pub mod rocks;
pub mod wal;
