//! The disk seam: the system calls the engine makes, so that a fake disk can lose, tear and reorder them.

/// A directory tree, at the level of system calls.
pub trait Disk: Send + Sync + 'static {}

/// The machine's own filesystem.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemDisk;

impl Disk for SystemDisk {}
