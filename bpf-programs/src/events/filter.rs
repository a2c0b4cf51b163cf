//! What `task_filter.h` reads: the one record that user space writes.

use super::record;

record! {
    /// Conditions that a task must meet.
    pub struct TaskFilter = "task_filter", 32 {
        /// [`PIDS`], [`COMM`], [`CGROUP_V2`], [`CGROUP_V1`]: all that are set must hold.
        conditions: u32 = 0,
        /// Number of the hierarchy that the cgroup v1 directory is in.
        cgroup_v1_hierarchy: i32 = 4,
        /// Inode number of the cgroup v1 directory.
        cgroup_v1_id: u64 = 8,
        /// Name of a thread or its process, zero-terminated.
        comm: [u8; 16] = 16,
    }
}

/// The process is in `pids`.
pub const PIDS: u32 = 1 << 0;
/// The thread or its process has the name.
pub const COMM: u32 = 1 << 1;
/// The task is in the cgroup of `cgroups`, or below it.
pub const CGROUP_V2: u32 = 1 << 2;
/// The task is in the cgroup v1 directory, or below it.
pub const CGROUP_V1: u32 = 1 << 3;

/// The record's bytes. Of `comm`, the first 15 bytes count, as the kernel keeps no more.
pub fn encode(
    conditions: u32,
    cgroup_v1_hierarchy: i32,
    cgroup_v1_id: u64,
    comm: &[u8],
) -> [u8; TaskFilter::SIZE] {
    let mut bytes = [0; TaskFilter::SIZE];
    let fields = conditions.to_ne_bytes().into_iter().chain(cgroup_v1_hierarchy.to_ne_bytes());
    let fields = fields.chain(cgroup_v1_id.to_ne_bytes()).chain(comm.iter().copied().take(15));
    bytes.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        let bytes = encode(PIDS | COMM, -2, 1 << 40, b"a name that is too long");
        let filter = TaskFilter::decode(&bytes).unwrap();
        assert_eq!((filter.conditions, filter.cgroup_v1_hierarchy, filter.cgroup_v1_id), (3, -2, 1 << 40));
        assert_eq!(&filter.comm, b"a name that is \0");
    }
}
