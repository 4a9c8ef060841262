//! The relay benchmark: `cargo bench --bench relay -- --help`; benches/README.md says how to read it.

#![allow(clippy::print_stdout, reason = "the report goes to standard output")]

#[cfg(target_os = "linux")]
mod generator;
#[cfg(target_os = "linux")]
mod job;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod plot;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod summary;
#[cfg(target_os = "linux")]
mod system;
#[cfg(target_os = "linux")]
mod topology;
#[cfg(target_os = "linux")]
mod turn_crate;
#[cfg(target_os = "linux")]
#[path = "../../tests/common/veth.rs"]
mod veth;

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use clap::Parser;
    use options::{Options, Role};

    if std::env::args().len() == 1 {
        println!("This is run by `cargo bench --bench relay`.");
        return Ok(());
    }
    let Options { run, role } = Options::parse();
    match role {
        Some(Role::Generate { job }) => generator::main(&job),
        Some(Role::TurnCrate { listen, namespace, workers }) => turn_crate::main(listen, namespace.as_deref(), workers),
        None => benchmark(&run),
    }
}

#[cfg(target_os = "linux")]
fn benchmark(options: &options::RunOptions) -> Result<(), Box<dyn std::error::Error>> {
    system::raise_descriptor_limit()?;
    let servers = servers::Server::find(options)?;
    let cpus = run::Cpus::choose(options)?;
    let topology = topology::Topology::build(options.topology)?;
    let machine = machine::Machine::read(options, &servers, &cpus, topology.name());
    eprintln!("{machine}");
    let records = run::run(options, &servers, &cpus, &topology);
    let summaries = summary::summarise(&records);
    println!("{machine}");
    println!("{}", report::tables(&summaries, options));
    if let Some(plot) = plot::svg(&summaries) {
        std::fs::write(&options.svg, plot)?;
        println!("Plot: {}", options.svg.display());
    }
    if let Some(file) = &options.json {
        let all = serde_json::json!({ "machine": machine, "results": summaries, "records": records });
        std::fs::write(file, serde_json::to_string_pretty(&all)?)?;
        println!("JSON: {}", file.display());
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("The relay benchmark needs Linux.");
}
