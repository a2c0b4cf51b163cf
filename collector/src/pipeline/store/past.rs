//! What was counted of resources that became others.
//!
//! To receivers of OTLP, that is another resource, whose series begin with nothing. On a page, where resources are told apart by
//! few labels, it is the same as before, and what counts must not fall. So a total is kept beside the one that goes on.

use super::{Content, Key, PER_SERIES, Series, Store};
use crate::pipeline::resources::ResourceId;

impl Store {
    /// Whether totals go on where a resource becomes another, in what is [current](Self::current).
    pub fn keep_past(&mut self, keeps: bool) {
        self.keeps_past = keeps;
    }

    /// Whether it is the past of a series that is still there, which makes no room before that.
    pub(super) fn goes_on(&self, key: Key) -> bool {
        key.past && self.by_key.contains_key(&Key { past: false, ..key })
    }

    /// Adds what was counted to the past of another resource.
    pub(super) fn add_past(&mut self, resource: ResourceId, old: Series) {
        let key = Key { resource, past: true, ..old.key };
        let at = match self.by_key.get(&key) {
            Some(at) => *at,
            None => {
                let is_histogram = matches!(old.content, Content::Histogram(_));
                let at = self.insert(key, 0, is_histogram);
                self.stats.bytes += PER_SERIES + self.content(at).map_or(0, |content| content.bytes());
                at
            }
        };
        let (mut before, mut after) = (0, 0);
        if let Some(content) = self.content(at) {
            before = content.bytes();
            match (&mut *content, &old.content) {
                (Content::Number(all), Content::Number(more)) => *all = all.add(*more),
                (Content::Histogram(all), Content::Histogram(more)) => all.merge(more),
                // A metric is one or the other.
                _ => {}
            }
            after = content.bytes();
        }
        self.stats.bytes += after.saturating_sub(before);
        self.forget(&old);
    }

    fn content(&mut self, at: u32) -> Option<&mut Content> {
        Some(&mut self.series.get_mut(at as usize)?.as_mut()?.content)
    }
}
