//! `calibrate`: fits the mock's cost model to recorded runs.

use super::args::{CalibrateArgs, TimeUnit};
use super::error::CliError;
use super::terminal;
use crate::backend::config::{Backend, MockBackend, Mode};
use crate::calibrate::{Fields, PARAMETERS, Parameter, Settings, Unit, calibrate, read};
use crate::campaign::{Changes, prepare, write_whole};
use crate::gate::exit;
use crate::nearest::nearest;

/// `calibrate`: the report and the backend block.
pub fn run(args: &CalibrateArgs) -> Result<u8, CliError> {
    let input = CliError::Input;
    let mut fields = Fields {
        unit: match args.unit {
            TimeUnit::S => Unit::S,
            TimeUnit::Ms => Unit::Ms,
            TimeUnit::Us => Unit::Us,
            TimeUnit::Ns => Unit::Ns,
        },
        block_tokens: args.block_tokens,
        workload: args.workload.clone(),
        backend: args.backend.clone(),
        ..Fields::default()
    };
    for field in &args.field {
        fields.set(field).map_err(input)?;
    }
    let fit = args.fit.iter().map(|name| parameter(name)).collect::<Result<Vec<_>, _>>().map_err(input)?;
    let start = args.from.as_deref().map(start).transpose()?;
    let recorded = read(&args.run, &fields).map_err(|error| input(error.to_string()))?;
    let fitted = calibrate(&recorded, &Settings { start, fit }).map_err(|error| input(error.to_string()))?;
    terminal::print(&fitted.report())?;
    let block = fitted.block("calibrated");
    match &args.out {
        Some(path) => write_whole(path, block.as_bytes())?,
        None => terminal::print(&format!("\n{block}"))?,
    }
    Ok(exit::PASS)
}

fn parameter(name: &str) -> Result<Parameter, String> {
    Parameter::named(name).ok_or_else(|| {
        let names: Vec<&str> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
        let hint = nearest(name, names.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
        format!(
            "there is no parameter `{name}`{}; parameters: {}",
            hint.unwrap_or_default(),
            names.join(", ")
        )
    })
}

/// The batched mock of a scenario: `FILE`, or `FILE#NAME` where there are several.
fn start(text: &str) -> Result<MockBackend, CliError> {
    let (file, name) = text.split_once('#').map_or((text, None), |(file, name)| (file, Some(name)));
    let prepared = prepare(std::path::Path::new(file), &Changes::default())?;
    let batched = prepared.scenario.backends.iter().filter_map(|(own, backend)| match backend {
        Backend::Mock(mock) if mock.mode == Mode::Batched && name.is_none_or(|name| name == own) => {
            Some((own, mock))
        }
        _ => None,
    });
    match batched.collect::<Vec<_>>().as_slice() {
        [(_, mock)] => Ok((*mock).clone()),
        [] => Err(CliError::Input(format!("`{text}` has no batched mock to start from"))),
        several => {
            let names: Vec<&str> = several.iter().map(|(name, _)| name.as_str()).collect();
            let message = format!(
                "`{file}` has several batched mocks: {}; write {file}#{}",
                names.join(", "),
                names[0]
            );
            Err(CliError::Input(message))
        }
    }
}
