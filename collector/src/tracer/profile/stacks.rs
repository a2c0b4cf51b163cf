//! Stacks of processes, as every tracer that walks them tells: how, and how far.

use super::accounting::Walks;
use super::session::Session;
use crate::config::Stacks;
use crate::error::Result;
use crate::telemetry::{Instrument, Metric, Owner, Point, PointValue, Sink, Subject};
use crate::tracer::ladder::{Chosen, Forced, Ladder, Rung};

/// How stacks have ended.
pub static STACKS: Metric = Metric {
    name: "ebpf.profile.stacks",
    unit: "{sample}",
    description: "Samples of processes by how far their stack was walked: `whole`, or why it ended before: `no table`, `bad CFA`, `depth`, \
                  `not mapped`, `beyond the copy`, `no room`; `by frame pointers`, nobody knows",
    instrument: Instrument::Counter,
    subject: Subject::Agent,
    attributes: &["ebpf.tracer", "ebpf.stack.end"],
    source: USER_STACKS.what,
};

/// How stacks of processes are walked: [`Stacks`].
pub static USER_STACKS: Ladder = Ladder {
    what: "user stacks",
    rungs: &[
        Rung { name: Stacks::Tables.as_str(), programs: &[], since: "5.8 on x86_64 and arm64", drawback: "" },
        Rung {
            name: Stacks::Copies.as_str(),
            programs: &[],
            since: "5.8 on x86_64 and arm64",
            drawback: "copies 16 KiB a sample; stacks that are larger are cut off",
        },
        Rung {
            name: Stacks::FramePointers.as_str(),
            programs: &[],
            since: "5.8",
            drawback: "short stacks where code has no frame pointers, as most has",
        },
    ],
    required: false,
};

/// How stacks are to be walked; `None`: in the best way.
///
/// # Errors
///
/// There is no such way.
pub fn wanted(forced: &Forced) -> Result<Option<Stacks>> {
    Ok(forced.rung(&USER_STACKS)?.and_then(|rung| Stacks::named(rung.name)))
}

/// How they are.
pub fn chosen(session: &Session) -> Chosen {
    let (rung, refused) = (Some(session.stacks().as_str()), session.refused_stacks().to_vec());
    Chosen { what: USER_STACKS.what, rung, refused }
}

/// How many had ended in each way when it was told last.
#[derive(Debug, Default)]
pub struct Told(Walks);

impl Told {
    /// Tells of those of a tracer that have ended since, if they are walked without frame pointers.
    pub fn tell(&mut self, tracer: &'static str, walks: Option<Walks>, sink: &mut dyn Sink) {
        let Some(walks) = walks else { return };
        let told = std::mem::replace(&mut self.0, walks).by_end();
        for ((end, count), (_, before)) in walks.by_end().into_iter().zip(told) {
            let since = count.saturating_sub(before);
            if since > 0 {
                let attributes = [("ebpf.tracer", tracer.into()), ("ebpf.stack.end", end.into())];
                let value = PointValue::Int(since as i64);
                sink.point(Point { metric: &STACKS, owner: Owner::Agent, attributes: &attributes, value });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Recorder;

    #[test]
    fn what_two_tracers_walk_is_told_apart_and_once() {
        let (mut of_cpu, mut off_cpu) = (Told::default(), Told::default());
        let mut sink = Recorder::default();
        let walks = |whole, depth| Some(Walks { whole, depth, ..Walks::default() });
        for (of, tracer, walks) in
            [(&mut of_cpu, "profile", walks(3, 0)), (&mut off_cpu, "off_cpu", walks(10, 1))]
        {
            of.tell(tracer, walks, &mut sink);
        }
        of_cpu.tell("profile", walks(5, 0), &mut sink);
        off_cpu.tell("off_cpu", None, &mut sink);
        let mut told: Vec<_> =
            sink.numbers.iter().map(|(series, n)| (series.attributes.clone(), *n)).collect();
        told.sort_by(|a, b| a.1.total_cmp(&b.1));
        let told: Vec<(Vec<String>, f64)> = told
            .into_iter()
            .map(|(attributes, n)| (attributes.iter().map(|(_, value)| value.to_string()).collect(), n))
            .collect();
        let of = |tracer: &str, end: &str, n| (vec![tracer.to_owned(), end.to_owned()], n);
        assert_eq!(
            told,
            [of("off_cpu", "depth", 1.0), of("profile", "whole", 5.0), of("off_cpu", "whole", 10.0)]
        );
    }
}
