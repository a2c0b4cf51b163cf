//! known-work PORT DNS: does what `tests::work` has the numbers of, once for each line on its standard input, and answers
//! each with a line. PORT is where a peer takes TCP and UDP on 127.0.0.1, DNS the address of a name server.

use std::io::{BufRead, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::work;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, port, dns] = arguments.as_slice() else { panic!("usage: known-work PORT DNS") };
    let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().expect("a port"));
    let name_server: SocketAddrV4 = dns.parse().expect("an address");
    let mut held = Vec::new();
    println!("ready");
    for line in std::io::stdin().lock().lines() {
        line?;
        round(peer, name_server, &mut held)?;
        println!("done");
    }
    Ok(())
}

fn round(peer: SocketAddrV4, name_server: SocketAddrV4, held: &mut Vec<Vec<u8>>) -> std::io::Result<()> {
    for _ in 0..work::GETPPID {
        let _ = std::os::unix::process::parent_id();
    }
    let nowhere = Path::new("/nonexistent-folder-of-a-test");
    for _ in 0..work::RMDIR_ENOENT {
        assert!(std::fs::remove_dir(nowhere).is_err());
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
    let until = Instant::now() + work::BUSY;
    while Instant::now() < until {
        std::hint::black_box(held.len());
    }
    Ok(())
}
