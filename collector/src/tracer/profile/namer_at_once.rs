//! Windows of a build that looks for no names in files: nothing takes long enough to be put off.

use std::time::Instant;

use mio::Token;

use super::naming::{self, WindowInfo};
use super::symbols::Symbols;
use crate::aggregate::{Counts, Samples};
use crate::error::Result;
use crate::model::Profile;
use crate::poll::EventLoop;
use crate::symbolize::Debuginfod;

/// Names windows when they end.
#[derive(Default)]
pub(in crate::tracer) struct Namer {
    named: Vec<Profile>,
}

impl Namer {
    /// Symbol tables, of which there are none, take nothing.
    pub fn start(_budget: usize) -> Result<Self> {
        Ok(Self::default())
    }

    /// There is nothing to wait for.
    pub fn watch(&self, _events: &EventLoop, _token: Token) -> Result<()> {
        Ok(())
    }

    /// Takes a window.
    pub fn take(&mut self, samples: Samples, info: WindowInfo, symbols: &mut Symbols) -> Result<()> {
        self.named.push(naming::name(&samples, info, symbols));
        Ok(())
    }

    /// There is no thread.
    pub fn raise_if_late(&mut self) {}

    /// Takes as many profiles of the same stacks as there are different counts.
    pub fn take_all(
        &mut self,
        mut samples: Samples,
        profiles: Vec<(Counts, WindowInfo)>,
        symbols: &mut Symbols,
    ) -> Result<()> {
        profiles.into_iter().for_each(|(counts, info)| {
            samples.counts = counts;
            self.named.push(naming::name(&samples, info, symbols));
        });
        Ok(())
    }

    /// There is nobody who could be asked.
    pub fn fetch_with(&mut self, servers: Debuginfod) -> Result<()> {
        match servers {}
    }

    /// The windows that are done, in their order.
    pub fn named(&mut self) -> Vec<Profile> {
        std::mem::take(&mut self.named)
    }

    /// All windows.
    pub fn settle(&mut self, _until: Option<Instant>) -> Result<Vec<Profile>> {
        Ok(self.named())
    }

    /// CPU time of another thread: there is none.
    pub fn cpu_nanos(&self) -> u64 {
        0
    }

    /// Names that would have come too late: there are none.
    pub fn late(&self) -> u64 {
        0
    }

    /// Keeps windows that were done before the one that was asked for.
    pub fn keep(&mut self, early: Vec<Profile>) {
        self.named = early;
    }
}
