//! Attachments.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use bpf_sys::uapi::info::{Info, RawLinkInfo};
use bpf_sys::{LinkFd, PerfFd, link, pin};

use crate::error::{Error, Result};
use crate::program::Program;

/// An attachment; dropping it detaches, unless it is pinned.
#[derive(Debug)]
pub struct Link {
    attachment: Attachment,
    pin: Option<PathBuf>,
}

#[derive(Debug)]
enum Attachment {
    Bpf(LinkFd),
    PerfEvent(PerfFd),
    Older(Box<dyn OlderAttachment>),
    /// Undone already.
    Nothing,
}

/// An attachment by other means than a BPF link, which its owner must undo: a filter of traffic control, XDP by netlink,
/// an entry in a control group's list, a probe written into tracefs.
pub trait OlderAttachment: fmt::Debug + Send + Sync {
    /// Undoes it. Called once; also when the [`Link`] is dropped, where the result is of no use to anyone.
    ///
    /// # Errors
    ///
    /// Whatever the kernel says.
    fn detach(&mut self) -> Result<()>;

    /// Puts another program in the place of the present one.
    ///
    /// # Errors
    ///
    /// Whatever the kernel says; that this kind of attachment cannot, unless implemented.
    fn update(&mut self, program: &Program) -> Result<()> {
        let _ = program;
        Err(Box::new(Error::NotABpfLink { operation: "replace its program" }))
    }
}

impl Link {
    /// A BPF link.
    pub fn from_fd(fd: LinkFd) -> Self {
        Self { attachment: Attachment::Bpf(fd), pin: None }
    }

    /// A program set by ioctl on a perf event. Dropping the link disables the event; the program goes with its last
    /// descriptor.
    pub(crate) fn from_perf_event(event: PerfFd) -> Self {
        Self { attachment: Attachment::PerfEvent(event), pin: None }
    }

    /// An attachment that undoes itself.
    pub fn from_older(attachment: impl OlderAttachment + 'static) -> Self {
        Self { attachment: Attachment::Older(Box::new(attachment)), pin: None }
    }

    /// Adopts a pinned link. Dropping it does not detach, as the pin remains; [`unpin`](Self::unpin) it first.
    ///
    /// # Errors
    ///
    /// There is no such pin, or it is no link's.
    pub fn from_pin(path: &Path) -> Result<Self> {
        let fd = pin::get_link(path, None)?;
        Ok(Self { attachment: Attachment::Bpf(fd), pin: Some(path.to_owned()) })
    }

    /// The BPF link, if it is one.
    pub fn fd(&self) -> Option<&LinkFd> {
        match &self.attachment {
            Attachment::Bpf(fd) => Some(fd),
            _ => None,
        }
    }

    fn bpf(&self, operation: &'static str) -> Result<&LinkFd> {
        self.fd().ok_or_else(|| Box::new(Error::NotABpfLink { operation }))
    }

    /// Pins the link in a BPF file system: the attachment then outlives this handle and the process.
    ///
    /// # Errors
    ///
    /// The name is taken or not in a BPF file system; the attachment is no BPF link, or pinned already.
    pub fn pin(&mut self, path: &Path) -> Result<()> {
        if let Some(at) = &self.pin {
            return Err(Box::new(Error::AlreadyPinned { path: at.clone() }));
        }
        pin::pin(self.bpf("be pinned")?.as_fd(), path, None)?;
        self.pin = Some(path.to_owned());
        Ok(())
    }

    /// Where it is pinned, if it is.
    pub fn pin_path(&self) -> Option<&Path> {
        self.pin.as_deref()
    }

    /// Removes the pin; the attachment lasts as long as this handle again.
    ///
    /// # Errors
    ///
    /// It is not pinned, or the file cannot be removed.
    pub fn unpin(&mut self) -> Result<()> {
        let path = self.pin.as_ref().ok_or(Error::NotPinned)?;
        std::fs::remove_file(path).map_err(|e| Error::File { path: path.clone(), reason: e.to_string() })?;
        self.pin = None;
        Ok(())
    }

    /// Replaces the program without a gap: `BPF_LINK_UPDATE` (Linux 5.7) or what the older attachment has for it.
    ///
    /// # Errors
    ///
    /// This kind of attachment cannot; tracing links, for one. The program is of another type.
    pub fn update(&mut self, program: &Program) -> Result<()> {
        match &mut self.attachment {
            Attachment::Bpf(fd) => Ok(link::update(fd, program.fd.as_fd(), 0, None)?),
            Attachment::Older(older) => older.update(program),
            _ => Err(Box::new(Error::NotABpfLink { operation: "replace its program" })),
        }
    }

    /// Detaches at once: a BPF link even if others hold it or it is pinned (`BPF_LINK_DETACH`, Linux 5.9; the link itself
    /// remains until its pin and this handle go).
    ///
    /// # Errors
    ///
    /// This kind of BPF link cannot (tracing and perf event links): drop it instead.
    pub fn detach(&mut self) -> Result<()> {
        match &mut self.attachment {
            Attachment::Bpf(fd) => Ok(link::detach(fd)?),
            _ => self.undo(),
        }
    }

    /// What the kernel tells of a BPF link (Linux 5.8).
    ///
    /// # Errors
    ///
    /// It is no BPF link, or the kernel is older.
    pub fn info(&self) -> Result<Info<RawLinkInfo>> {
        Ok(link::info(self.bpf("tell about itself")?)?)
    }

    /// Runs an iterator program: what it writes is read from the file, which ends when it is through (Linux 5.8). Each call
    /// starts anew.
    ///
    /// # Errors
    ///
    /// The link is no iterator's.
    pub fn iter(&self) -> Result<File> {
        Ok(File::from(link::iter_create(self.bpf("be iterated")?)?))
    }

    /// Undoes what the kernel does not undo by itself when descriptors close.
    fn undo(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.attachment, Attachment::Nothing) {
            Attachment::Bpf(_) | Attachment::Nothing => Ok(()),
            Attachment::PerfEvent(event) => Ok(event.disable(false)?),
            Attachment::Older(mut older) => older.detach(),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // A failure means that the target is gone, and the attachment with it.
        let _ = self.undo();
    }
}
