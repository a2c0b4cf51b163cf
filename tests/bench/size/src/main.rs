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
    use collector::export::file::FileExporter;
    use collector::export::pipeline::{DEFAULT_FLUSH, Exporter, Outlet};
    use collector::export::{ExportConfig, Request, Signal, Sink};

    let env = |name: &str| std::env::var(name).ok();
    let config = ExportConfig::resolve(&[Signal::Traces], &[], &env)?;
    let outlet = |sink: &Sink| match sink {
        #[cfg(feature = "http")]
        Sink::Otlp(destination) => Outlet::to(destination, Limits::default()).map(Some),
        Sink::File(settings) => Ok(Some(Outlet {
            name: "files".to_owned(),
            signals: vec![Signal::Traces],
            timeout: None,
            limits: Limits::default(),
            transport: Box::new(FileExporter::new(settings)),
            spool: None,
        })),
        _ => Ok(None),
    };
    let outlets =
        config.sinks.iter().map(outlet).collect::<Result<Vec<_>, Box<collector::export::ExportError>>>()?;
    let exporter = Exporter::start(outlets.into_iter().flatten().collect())?;
    exporter.push(&Request { signal: Signal::Traces, items: 1, body: body.into() });
    println!("{:?}", exporter.shut_down(DEFAULT_FLUSH));
    Ok(())
}
