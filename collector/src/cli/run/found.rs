//! What tracers find, on its way to a person, and to the port's page where there is one.

use bpf_programs::events::process::Lifecycle;
use collector::agent::config::AgentConfig;
use collector::agent::self_metrics::SelfMetrics;
use collector::agent::{Agent, Budget, Report};
use collector::export::Signal;
use collector::export::config::{LogLevel, Temporality, process_env};
use collector::export::stats::Stats;
use collector::model::Profile;
use collector::pipeline::{AboutAgent, Memory, Pipeline, Reading, Settings};
use collector::telemetry::{LogRecord, Point, Recorder, Sink, Span};

use super::super::send::random_id;
use super::super::{one_line, say_at};

/// Least room for the page.
const MIN_PAGE: usize = 256 << 10;

/// A pipeline, and what the agent tells it about itself.
pub struct Telling {
    pub pipeline: Pipeline,
    own: SelfMetrics,
    about: AboutAgent,
}

/// What is shown, and what is served beside it.
#[derive(Default)]
pub struct Found {
    pub recorder: Recorder,
    page: Option<Box<Telling>>,
}

fn bytes(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What to call a process: as it is called now, or as one of its threads was when the kernel saw it. 0 stands for all whose
/// process is not known.
pub fn process_name(recorder: &Recorder, pid: u32) -> String {
    if pid == 0 {
        return "(not known)".to_owned();
    }
    let now = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    let then = || {
        let comm = recorder.names.get(&pid)?;
        let end = comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len());
        Some(String::from_utf8_lossy(comm.get(..end)?).into_owned())
    };
    now.map(|name| name.trim_end().to_owned()).or_else(then).unwrap_or_else(|| "-".to_owned())
}

/// Memory of a pipeline of this configuration, and of its page.
pub fn memory(budget: &Budget, config: &AgentConfig) -> (usize, Option<usize>) {
    let page = config.agent.listen.map(|_| bytes(budget.series / 2).max(MIN_PAGE));
    let series = if page.is_some() { budget.series - budget.series / 2 } else { budget.series };
    (bytes(series + budget.names), page)
}

impl Telling {
    pub fn new(pipeline: Pipeline) -> Self {
        Self { pipeline, own: SelfMetrics::default(), about: AboutAgent::default() }
    }

    /// A pipeline for the port's page alone.
    fn for_page(budget: &Budget, config: &AgentConfig) -> Result<Self, otlp_encode::Error> {
        let (memory, page) = memory(budget, config);
        let (mut settings, _) = Settings::read(&process_env, "ebpf-otlp", random_id(), memory);
        settings.sdk.metrics.temporality = Temporality::Cumulative;
        settings.per_process |= config.export.per_process || !config.filter.pids.is_empty();
        let mut pipeline = Pipeline::new(settings, Reading::now())?;
        pipeline.serve_page(page, Memory::split(memory).series);
        Ok(Self::new(pipeline))
    }

    /// Tells how the agent fares, and what became of what was exported.
    pub fn tell(&mut self, report: &Report, exports: &[Stats]) {
        let stats = self.pipeline.stats();
        self.own.tell(report, exports, &mut self.pipeline);
        self.about.export(&mut self.pipeline, exports);
        self.about.pipeline(&mut self.pipeline, &stats);
    }

    /// Has a page from now on, or none.
    pub fn serve(&mut self, agent: &Agent) {
        let (memory, page) = memory(agent.budget(), agent.config());
        self.pipeline.serve_page(page, Memory::split(memory).series);
    }

    /// Before the first window ends, there is what the agent knows of itself.
    pub fn begin(&mut self, agent: &mut Agent) {
        let report = agent.report();
        self.tell(&report, &[]);
        self.pipeline.refresh_page();
        agent.set_metrics(self.pipeline.page());
    }
}

impl Found {
    /// Serves a page from now on, or none.
    pub fn serve(&mut self, agent: &Agent) {
        if agent.config().agent.listen.is_none() {
            self.page = None;
        } else if let Some(page) = &mut self.page {
            page.serve(agent);
        } else {
            match Telling::for_page(agent.budget(), agent.config()) {
                Ok(page) => self.page = Some(Box::new(page)),
                Err(error) => {
                    say_at(LogLevel::Error, format_args!("no metrics are served: {}", one_line(&error)))
                }
            }
        }
    }

    pub fn begin(&mut self, agent: &mut Agent) {
        self.page.iter_mut().for_each(|page| page.begin(agent));
    }

    /// Ends a window.
    pub fn collect(&mut self, agent: &mut Agent) -> Report {
        let mut report = agent.collect(self);
        // People see what belongs to the window in it.
        agent.settle(None, &mut report, self);
        if let Some(page) = &mut self.page {
            page.tell(&report, &[]);
            // Requests go nowhere.
            page.pipeline.flush(Reading::now(), &[Signal::Metrics], &mut |_| {});
            agent.set_metrics(page.pipeline.page());
        }
        report
    }
}

impl Sink for Found {
    fn point(&mut self, point: Point<'_>) {
        self.recorder.point(point);
        self.page.iter_mut().for_each(|page| page.pipeline.point(point));
    }

    fn span(&mut self, span: Span<'_>) {
        self.recorder.span(span);
    }

    fn log(&mut self, record: LogRecord<'_>) {
        self.recorder.log(record);
    }

    fn profile(&mut self, profile: Profile) {
        self.recorder.profile(profile);
    }

    fn lifecycle(&mut self, event: &Lifecycle) {
        self.recorder.lifecycle(event);
        self.page.iter_mut().for_each(|page| page.pipeline.lifecycle(event));
    }
}
