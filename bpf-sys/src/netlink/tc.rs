//! BPF filters and actions of the clsact queueing discipline (include/uapi/linux/{rtnetlink,pkt_sched,pkt_cls}.h and
//! tc_act/tc_bpf.h).

use std::os::fd::BorrowedFd;

use super::message::{find, find_u32, u32_at};
use super::{Request, RouteSocket};
use crate::errno::Result;
use crate::raw::fd_u32;

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1 << 0;
const TCA_MATCHALL_ACT: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_BPF_PARMS: u16 = 2;
const TCA_ACT_BPF_FD: u16 = 5;
const TCA_ACT_BPF_NAME: u16 = 6;
/// `struct tc_act_bpf`, of which all is for the kernel to choose.
const TC_ACT_BPF: [u8; 20] = [0; 20];
const CLSACT_HANDLE: u32 = 0xffff_0000;
const CLSACT_PARENT: u32 = 0xffff_fff1;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const EXCL: u16 = libc::NLM_F_EXCL as u16;
const REPLACE: u16 = libc::NLM_F_REPLACE as u16;
/// The kernel tells what it made, with the numbers that it chose.
const ECHO: u16 = libc::NLM_F_ECHO as u16;

/// Which packets of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// What it received.
    Ingress,
    /// What it is to send.
    Egress,
}

impl Direction {
    /// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_*)`.
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// Where a filter stands: filters run by rising priority, and a handle tells those of one priority apart. 0 lets the
/// kernel choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FilterId {
    /// Priority.
    pub priority: u16,
    /// Handle.
    pub handle: u32,
}

/// A filter to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewFilter<'a> {
    /// Where.
    pub id: FilterId,
    /// The program, of type SCHED_CLS.
    pub program: BorrowedFd<'a>,
    /// A name to be shown.
    pub name: &'a str,
    /// The program's result is the packet's fate (`TC_ACT_*`); else it is a class.
    pub direct_action: bool,
    /// Take the place of the filter with this [`id`](Self::id).
    pub replace: bool,
}

/// A filter as the kernel tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Where.
    pub id: FilterId,
    /// The program.
    pub prog_id: u32,
    /// Its name.
    pub name: String,
    /// Whether the program's result is the packet's fate.
    pub direct_action: bool,
}

/// `struct tcmsg`.
fn header(device: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut out = [0; 20];
    for (to, word) in out[4..].chunks_exact_mut(4).zip([device, handle, parent, info]) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    out
}

fn filter_header(device: u32, direction: Direction, id: FilterId) -> [u8; 20] {
    let every_protocol = u32::from((libc::ETH_P_ALL as u16).to_be());
    header(device, id.handle, direction.parent(), u32::from(id.priority) << 16 | every_protocol)
}

/// The id in a `RTM_NEWTFILTER`.
fn filter_id(payload: &[u8]) -> Option<FilterId> {
    let (handle, info) = (u32_at(payload, 8)?, u32_at(payload, 16)?);
    Some(FilterId { priority: (info >> 16) as u16, handle })
}

/// A filter from a `RTM_NEWTFILTER`, unless it is of another kind.
fn parse(id: Option<FilterId>, attrs: &[u8]) -> Option<Filter> {
    let id = id?;
    if find(attrs, TCA_KIND)? != b"bpf\0" {
        return None;
    }
    let options = find(attrs, TCA_OPTIONS)?;
    let name = find(options, TCA_BPF_NAME).unwrap_or_default();
    Some(Filter {
        id,
        prog_id: find_u32(options, TCA_BPF_ID)?,
        name: String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name)).into_owned(),
        direct_action: find_u32(options, TCA_BPF_FLAGS).unwrap_or(0) & TCA_BPF_FLAG_ACT_DIRECT != 0,
    })
}

impl RouteSocket {
    /// `RTM_NEWQDISC`: gives a device the discipline that BPF filters need.
    ///
    /// # Errors
    ///
    /// `EEXIST`: it has it. `ENOENT`: the kernel is without it. `EPERM`: needs CAP_NET_ADMIN. Linux 4.5.
    pub fn create_clsact(&mut self, device: u32) -> Result<()> {
        let request =
            Request::new(RTM_NEWQDISC, CREATE | EXCL, &header(device, CLSACT_HANDLE, CLSACT_PARENT, 0));
        self.request("RTM_NEWQDISC (clsact)", request.attr_str(TCA_KIND, "clsact"))
    }

    /// `RTM_DELQDISC`: takes the discipline and all filters away.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `ENOENT`: it has none.
    pub fn delete_clsact(&mut self, device: u32) -> Result<()> {
        let request = Request::new(RTM_DELQDISC, 0, &header(device, CLSACT_HANDLE, CLSACT_PARENT, 0));
        self.request("RTM_DELQDISC (clsact)", request.attr_str(TCA_KIND, "clsact"))
    }

    /// `RTM_NEWTFILTER`: attaches a program to a device that has the discipline, and tells where it stands.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a filter with this id. `EINVAL`: there is no discipline, or the program is of another type.
    /// `ENOENT`: the kernel is without BPF filters.
    pub fn add_filter(&mut self, device: u32, direction: Direction, new: &NewFilter<'_>) -> Result<FilterId> {
        let flags = CREATE | ECHO | if new.replace { REPLACE } else { EXCL };
        let request = Request::new(RTM_NEWTFILTER, flags, &filter_header(device, direction, new.id))
            .attr_str(TCA_KIND, "bpf")
            .nest(TCA_OPTIONS, |options| {
                let options =
                    options.attr_u32(TCA_BPF_FD, fd_u32(new.program)).attr_str(TCA_BPF_NAME, new.name);
                match new.direct_action {
                    true => options.attr_u32(TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT),
                    false => options,
                }
            });
        let made = self.filter("RTM_NEWTFILTER (bpf)", request)?;
        Ok(made.map_or(new.id, |filter| filter.id))
    }

    /// `RTM_NEWTFILTER`: a filter that takes every packet and has a program of type SCHED_ACT as its action. `new`'s
    /// program decides by its result (`TC_ACT_*`) whatever [`direct_action`](NewFilter::direct_action) says.
    ///
    /// # Errors
    ///
    /// `EEXIST`: there is a filter with this id, which is never replaced. `EINVAL`: there is no discipline, or the program
    /// is of another type. `ENOENT`: the kernel is without such filters (`matchall`) or BPF actions. Linux 4.8.
    pub fn add_action(&mut self, device: u32, direction: Direction, new: &NewFilter<'_>) -> Result<FilterId> {
        let flags = CREATE | ECHO | EXCL;
        let request = Request::new(RTM_NEWTFILTER, flags, &filter_header(device, direction, new.id))
            .attr_str(TCA_KIND, "matchall")
            .nest(TCA_OPTIONS, |options| {
                // A list of actions, of which this is the first.
                options.nest(TCA_MATCHALL_ACT, |list| {
                    list.nest(1, |action| {
                        action.attr_str(TCA_ACT_KIND, "bpf").nest(TCA_ACT_OPTIONS, |options| {
                            options
                                .attr(TCA_ACT_BPF_PARMS, &TC_ACT_BPF)
                                .attr_u32(TCA_ACT_BPF_FD, fd_u32(new.program))
                                .attr_str(TCA_ACT_BPF_NAME, new.name)
                        })
                    })
                })
            });
        let mut made = new.id;
        self.ask("RTM_NEWTFILTER (matchall)", request, |reply| {
            if let (RTM_NEWTFILTER, Some(id)) = (reply.kind, filter_id(reply.payload)) {
                made = id;
            }
        })?;
        Ok(made)
    }

    /// `RTM_DELTFILTER`: removes a filter that [`add_action`](Self::add_action) made.
    ///
    /// # Errors
    ///
    /// `ENOENT`: there is no such filter.
    pub fn delete_action(&mut self, device: u32, direction: Direction, id: FilterId) -> Result<()> {
        let request = Request::new(RTM_DELTFILTER, 0, &filter_header(device, direction, id));
        self.request("RTM_DELTFILTER (matchall)", request.attr_str(TCA_KIND, "matchall"))
    }

    /// `RTM_DELTFILTER`: detaches a program.
    ///
    /// # Errors
    ///
    /// `ENOENT`: there is no such filter.
    pub fn delete_filter(&mut self, device: u32, direction: Direction, id: FilterId) -> Result<()> {
        let request = Request::new(RTM_DELTFILTER, 0, &filter_header(device, direction, id));
        self.request("RTM_DELTFILTER (bpf)", request.attr_str(TCA_KIND, "bpf"))
    }

    /// `RTM_GETTFILTER`: one filter; `None` if it is of another kind.
    ///
    /// # Errors
    ///
    /// `ENOENT`, `EINVAL`: there is no such filter.
    pub fn get_filter(&mut self, device: u32, direction: Direction, id: FilterId) -> Result<Option<Filter>> {
        let request = Request::new(RTM_GETTFILTER, 0, &filter_header(device, direction, id));
        self.filter("RTM_GETTFILTER (bpf)", request.attr_str(TCA_KIND, "bpf"))
    }

    /// The filter of which the kernel speaks in its answer.
    fn filter(&mut self, call: &'static str, request: Request) -> Result<Option<Filter>> {
        let mut found = None;
        self.ask(call, request, |reply| {
            if reply.kind == RTM_NEWTFILTER {
                found = parse(filter_id(reply.payload), reply.attributes(20));
            }
        })?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::replies;
    use super::*;

    #[test]
    fn a_filter_is_read_from_what_the_kernel_tells() {
        let id = FilterId { priority: 7, handle: 9 };
        let message = |kind: &str, with_id: bool| {
            let mut request = Request::new(RTM_NEWTFILTER, 0, &filter_header(3, Direction::Egress, id))
                .attr_str(TCA_KIND, kind)
                .nest(TCA_OPTIONS, |o| {
                    let o = o.attr_str(TCA_BPF_NAME, "prog").attr_u32(TCA_BPF_FLAGS, 1);
                    if with_id { o.attr_u32(TCA_BPF_ID, 42) } else { o }
                });
            let bytes = request.finish("x", 1).unwrap();
            let reply = replies(bytes).next().unwrap().unwrap();
            assert_eq!(u32_at(reply.payload, 12), Some(0xffff_fff3));
            parse(filter_id(reply.payload), reply.attributes(20))
        };
        let filter = Filter { id, prog_id: 42, name: "prog".into(), direct_action: true };
        assert_eq!(message("bpf", true), Some(filter));
        assert_eq!(message("u32", true), None);
        assert_eq!(message("bpf", false), None);
        assert_eq!(parse(None, &[]), None);
    }
}
