//! All metrics as a page of Prometheus' text format, as of the end of the last window.
//!
//! Totals since the start, whatever the temporality of what is exported. Services are told apart by `job` and `instance`, of
//! which `target_info` says the rest; the machine's and the agent's own series have neither, as they are the target itself.

use std::cmp::Reverse;

use bytes::Bytes;

use super::Pipeline;
use super::keep::show;
use super::resources::ResourceId;
use super::store::{Current, Store};
use crate::built_in::ListenBuiltIn;
use crate::convert::prometheus::{Page, Sample, label};
use crate::export::config::Temporality;
use crate::sorted::SortedMap;
use crate::telemetry::Subject;

/// What is served.
#[derive(Debug)]
pub(super) struct Served {
    _built_in: ListenBuiltIn,
    max_bytes: usize,
    /// Totals, where what is exported has none.
    totals: Option<Store>,
    text: Bytes,
}

impl Served {
    pub(super) fn totals(&mut self) -> Option<&mut Store> {
        self.totals.as_mut()
    }
}

impl Pipeline {
    /// Keeps a page of so many bytes at most, from now on, or none. Series take about `series` bytes at most from now on; where
    /// deltas are exported and there is a page, half of that is for its totals.
    pub fn serve_page(&mut self, max_bytes: Option<usize>, series: usize) {
        let is_delta = self.store.preference() != Temporality::Cumulative;
        let has_totals = is_delta && max_bytes.is_some();
        let of_each = if has_totals { series / 2 } else { series };
        self.store.set_max_bytes(of_each);
        self.store.keep_past(max_bytes.is_some());
        let totals = || {
            let mut totals = Store::new(Temporality::Cumulative, of_each);
            totals.keep_past(true);
            is_delta.then_some(totals)
        };
        self.page = match (self.page.take(), max_bytes) {
            (_, None) => None,
            (Some(served), Some(max_bytes)) => Some(Served { max_bytes, ..served }),
            (None, Some(max_bytes)) => ListenBuiltIn::get().map(|_built_in| Served {
                _built_in,
                max_bytes,
                totals: totals(),
                text: Bytes::new(),
            }),
        };
    }

    /// The page, as of the last [flush](Self::flush) of metrics or since it was [refreshed](Self::refresh_page); empty where
    /// there is none.
    pub fn page(&self) -> Bytes {
        self.page.as_ref().map(|served| served.text.clone()).unwrap_or_default()
    }

    /// Writes the page with what is known by now.
    pub fn refresh_page(&mut self) {
        let Some(served) = &self.page else { return };
        let store = served.totals.as_ref().unwrap_or(&self.store);
        let mut all: Vec<Current<'_>> = store.current().collect();
        // The agent's own first: they are on the page whatever else finds room.
        // Of gauges of a service that has become another resource in this window, the first is shown: the newest.
        all.sort_by_key(|series| {
            (series.metric.subject != Subject::Agent, series.metric.name, Reverse(series.resource))
        });
        let mut targets: SortedMap<ResourceId, String> = SortedMap::new();
        let mut page = Page::new(served.max_bytes);
        let same = |a: &Current<'_>, b: &Current<'_>| a.metric.name == b.metric.name;
        for family in all.chunk_by(same) {
            let series = family.iter().map(|series| {
                let target = targets.entry(series.resource).or_insert_with(|| self.labels(series.resource));
                let mut labels = target.clone();
                let attributes = store.attributes(series);
                attributes.iter().for_each(|(key, value)| label(&mut labels, key, &show(*value)));
                (labels, Sample::from(series.value))
            });
            let series = series.collect();
            if let Some(first) = family.first() {
                page.family(first.metric, series);
            }
        }
        targets.insert(ResourceId::AGENT, String::new());
        // Where a service has become another resource in this window, what is true now.
        let told = targets.iter().filter(|(id, _)| **id == ResourceId::AGENT || id.is_processes());
        let last: SortedMap<&str, ResourceId> = told.map(|(id, labels)| (labels.as_str(), *id)).collect();
        let info = |(labels, id): (&str, ResourceId)| {
            let mut labels = labels.to_owned();
            self.resources.facts(id).iter().for_each(|(key, value)| label(&mut labels, key, value));
            labels
        };
        let infos: Vec<String> = last.into_iter().map(info).collect();
        page.targets(&infos);
        let text = page.finish().into();
        if let Some(served) = &mut self.page {
            served.text = text;
        }
    }

    fn labels(&self, id: ResourceId) -> String {
        let mut labels = String::new();
        self.resources.labels(id).iter().for_each(|(key, value)| label(&mut labels, key, value));
        labels
    }
}
