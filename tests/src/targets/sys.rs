//! What the kernel says about sockets.

use bpf_sys::sock_diag::{TcpInfo, TcpSocket};

/// One answer to a dump of TCP sockets.
pub fn sys_sock_diag(data: &[u8]) {
    let socket = TcpSocket::decode(data);
    if let Some(socket) = socket {
        assert!(matches!(data[0], 2 | 10) && data.len() >= 72);
        assert_eq!(socket.local.is_ipv4(), data[0] == 2);
        assert_eq!(socket.local.is_ipv4(), socket.remote.is_ipv4());
        assert_eq!(socket.state, data[1]);
    }
    let info = TcpInfo::decode(data);
    assert_eq!(info.is_some(), data.len() >= 104);
    assert_eq!(info.is_some_and(|info| info.segs_in.is_some()), data.len() >= 144);
}
