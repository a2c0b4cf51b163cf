//! XDP programs on devices (`IFLA_XDP`, include/uapi/linux/if_link.h).

use std::os::fd::{AsRawFd, BorrowedFd};

use super::message::{attributes, find, u32_at};
use super::{Request, RouteSocket};
use crate::errno::Result;

const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_FD: u16 = 1;
const IFLA_XDP_FLAGS: u16 = 3;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;
const IFLA_XDP_HW_PROG_ID: u16 = 7;
const IFLA_XDP_EXPECTED_FD: u16 = 8;
const XDP_FLAGS_UPDATE_IF_NOEXIST: u32 = 1 << 0;
const XDP_FLAGS_REPLACE: u32 = 1 << 4;

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The driver if it can, else the network stack.
    #[default]
    Any,
    /// The network stack, on every device.
    Skb,
    /// The driver.
    Driver,
    /// The device itself; the program was loaded for it.
    Hardware,
}

impl Mode {
    /// `XDP_FLAGS_*_MODE`, which links take too.
    pub const fn flags(self) -> u32 {
        match self {
            Self::Any => 0,
            Self::Skb => 1 << 1,
            Self::Driver => 1 << 2,
            Self::Hardware => 1 << 3,
        }
    }
}

/// What must be attached before.
#[derive(Debug, Clone, Copy, Default)]
pub enum Expected<'a> {
    /// Whatever it is.
    #[default]
    Anything,
    /// No program.
    Nothing,
    /// This program (Linux 5.7).
    Program(BorrowedFd<'a>),
}

/// The ids of a device's programs, 0 for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attached {
    /// The only program, if there is one.
    pub prog_id: u32,
    /// Run by the network stack.
    pub skb_prog_id: u32,
    /// Run by the driver.
    pub driver_prog_id: u32,
    /// Run by the device.
    pub hardware_prog_id: u32,
}

/// `struct ifinfomsg` of one device.
fn interface(device: u32) -> [u8; 16] {
    let mut out = [0; 16];
    out[4..8].copy_from_slice(&device.to_ne_bytes());
    out
}

impl RouteSocket {
    /// `RTM_SETLINK (IFLA_XDP)`: attaches a program to a device, or detaches what is there.
    ///
    /// # Errors
    ///
    /// `EBUSY`: a link or another mode holds the device, or there is a program although none was expected. `EEXIST`:
    /// another than the expected program. `EOPNOTSUPP`: the driver cannot. `ENODEV`. `EPERM`: needs CAP_NET_ADMIN.
    ///
    /// Linux 4.8; 4.12 for [`Mode::Skb`], 5.7 for [`Expected::Program`], which is passed over before.
    pub fn set_xdp(
        &mut self,
        device: u32,
        program: Option<BorrowedFd<'_>>,
        mode: Mode,
        expected: Expected<'_>,
    ) -> Result<()> {
        let fd = program.map_or(-1, |fd| fd.as_raw_fd());
        let flags = mode.flags()
            | match expected {
                Expected::Anything => 0,
                Expected::Nothing => XDP_FLAGS_UPDATE_IF_NOEXIST,
                Expected::Program(_) => XDP_FLAGS_REPLACE,
            };
        let request = Request::new(RTM_SETLINK, 0, &interface(device)).nest(IFLA_XDP, |xdp| {
            let xdp = xdp.attr(IFLA_XDP_FD, &fd.to_ne_bytes()).attr_u32(IFLA_XDP_FLAGS, flags);
            match expected {
                Expected::Program(old) => xdp.attr(IFLA_XDP_EXPECTED_FD, &old.as_raw_fd().to_ne_bytes()),
                _ => xdp,
            }
        });
        self.request("RTM_SETLINK (IFLA_XDP)", request)
    }

    /// `RTM_GETLINK`: the XDP programs of a device, by whichever way they are attached.
    ///
    /// # Errors
    ///
    /// `ENODEV`: there is no such device.
    pub fn xdp(&mut self, device: u32) -> Result<Attached> {
        let mut attached = Attached::default();
        let request = Request::new(RTM_GETLINK, 0, &interface(device));
        self.ask("RTM_GETLINK", request, |reply| {
            let Some(xdp) = find(reply.attributes(16), IFLA_XDP) else { return };
            for (kind, payload) in attributes(xdp) {
                let id = match kind {
                    IFLA_XDP_PROG_ID => &mut attached.prog_id,
                    IFLA_XDP_SKB_PROG_ID => &mut attached.skb_prog_id,
                    IFLA_XDP_DRV_PROG_ID => &mut attached.driver_prog_id,
                    IFLA_XDP_HW_PROG_ID => &mut attached.hardware_prog_id,
                    _ => continue,
                };
                *id = u32_at(payload, 0).unwrap_or(0);
            }
        })?;
        Ok(attached)
    }
}
