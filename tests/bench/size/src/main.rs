//! A program that reads a file, and with the feature `export` sends it where `OTEL_EXPORTER_OTLP_*` say.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = lexopt::Parser::from_env();
    let Some(lexopt::Arg::Value(path)) = arguments.next()? else { return Err("name a file".into()) };
    let bytes = std::fs::read(path)?;
    println!("{} bytes", bytes.len());
    #[cfg(feature = "export")]
    export(bytes)?;
    Ok(())
}

#[cfg(feature = "export")]
fn export(body: Vec<u8>) -> Result<(), Box<dyn Error>> {
    use collector::export::delivery::Limits;
    use collector::export::pipeline::{DEFAULT_FLUSH, Exporter, Outlet};
    use collector::export::{ExportConfig, Request, Signal};

    let env = |name: &str| std::env::var(name).ok();
    let config = ExportConfig::resolve(&[Signal::Traces], &[], &env)?;
    let outlets = config.sinks.iter().map(|sink| Outlet::to_sink(sink, Limits::default()));
    let exporter = Exporter::start(outlets.collect::<Result<_, _>>()?)?;
    exporter.push(&Request { signal: Signal::Traces, items: 1, body: body.into() });
    println!("{:?}", exporter.shut_down(DEFAULT_FLUSH));
    Ok(())
}
