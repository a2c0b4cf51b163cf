//! The workload itself.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::work;

/// A line that asks for a round.
pub const KEEP: &str = "keep";
/// One that asks for a round after which no memory is kept.
pub const KEEP_NOTHING: &str = "keep nothing";

/// Does what [`work`] has the numbers of, once for each line on standard input, and answers each with a line.
/// `port` is where a peer takes TCP and UDP on 127.0.0.1, `dns` the address of a name server, or one
/// with the port 0, `disk` a block device that may be written to, or nothing.
///
/// # Errors
///
/// Something that has to succeed did not.
pub fn serve(port: &str, dns: &str, disk: &str) -> io::Result<()> {
    let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().map_err(io::Error::other)?);
    let name_server: SocketAddrV4 = dns.parse().map_err(io::Error::other)?;
    let mut held = Vec::new();
    println!("ready");
    for line in io::stdin().lock().lines() {
        round(peer, name_server, &mut held)?;
        if line? == KEEP_NOTHING {
            held.truncate(held.len() - work::HELD as usize);
        }
        if !disk.is_empty() {
            use_disk(Path::new(disk))?;
        }
        println!("done");
    }
    Ok(())
}

/// Reads and writes past the page cache, so that each call is a request.
fn use_disk(disk: &Path) -> io::Result<()> {
    let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
    let file = File::options().read(true).write(true).custom_flags(direct).open(disk)?;
    // Direct input and output want aligned memory.
    let mut memory = vec![5; 2 * work::BLOCK];
    let start = memory.as_ptr().align_offset(work::BLOCK);
    let block = &mut memory[start..start + work::BLOCK];
    // Apart, so that none are merged.
    let place = |n: u64| 2 * n * work::BLOCK as u64;
    (0..work::BLOCKS_WRITTEN).try_for_each(|n| file.write_all_at(block, place(n)))?;
    (0..work::BLOCKS_READ).try_for_each(|n| file.read_exact_at(block, place(n)))
}

/// How long this thread ran.
fn cpu_time() -> io::Result<Duration> {
    let ticks = std::fs::read_to_string("/proc/self/stat")?;
    let user = ticks.rsplit_once(") ").and_then(|(_, fields)| fields.split(' ').nth(11)?.parse().ok());
    // Of 100 in a second.
    Ok(Duration::from_millis(10 * user.unwrap_or(0_u64)))
}

fn round(peer: SocketAddrV4, name_server: SocketAddrV4, held: &mut Vec<Vec<u8>>) -> io::Result<()> {
    for _ in 0..work::GETPPID {
        let _ = std::os::unix::process::parent_id();
    }
    // Where it can be written to: elsewhere it might be another error.
    let nowhere = std::env::temp_dir().join("nonexistent-folder-of-a-test");
    for _ in 0..work::RMDIR_ENOENT {
        assert!(std::fs::remove_dir(&nowhere).is_err());
    }
    for _ in 0..work::RMDIR_ENOTDIR {
        assert!(std::fs::remove_dir("/dev/null").is_err());
    }

    for _ in 0..work::CONNECTIONS {
        let mut stream = TcpStream::connect(peer)?;
        stream.write_all(&[1; work::SENT])?;
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        assert_eq!(stream.read_to_end(&mut answer)?, work::ANSWERED);
    }
    for _ in 0..work::REFUSED {
        // Nobody listens at tcpmux.
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, 1)).is_err());
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    for _ in 0..work::DATAGRAMS {
        assert_eq!(socket.send_to(&[2; work::DATAGRAM], peer)?, work::DATAGRAM);
    }
    if name_server.port() != 0 {
        socket.connect(name_server)?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        for id in 0..work::LOOKUPS as u16 {
            socket.send(&work::dns_query(id))?;
            socket.recv(&mut [0; 512])?;
        }
    }

    for _ in 0..work::CHILDREN {
        let status = Command::new("/bin/sh").args(["-c", "exit 7"]).status()?;
        assert_eq!(status.code(), Some(7));
    }
    for _ in 0..work::HELD {
        held.push(vec![3; work::HELD_BYTES]);
    }
    let until = cpu_time()? + work::BUSY;
    while cpu_time()? < until {
        let mut sum = 0_u64;
        (0..100_000).for_each(|n| sum = std::hint::black_box(sum ^ n));
    }
    Ok(())
}
