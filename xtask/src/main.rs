//! `cargo xtask`: the project's tasks.

use std::error::Error as _;
use std::fs;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use xtask::bench;
use xtask::checks::{self, Step};
use xtask::cloud::{self, Cloud, DEFAULT_NAME};
use xtask::demo;
use xtask::functions::{self, Profile};
use xtask::interrupt::interruptible;
use xtask::progress::Progress;
use xtask::template::Template;
use xtask::tools::Tools;
use xtask::workspace::root;
use xtask::{Error, Result, layout, scaffold};

/// The project's tasks
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// The local cloud: an AWS emulator with this checkout's template.yaml deployed on it
    Cloud {
        #[command(subcommand)]
        action: CloudAction,
    },
    /// Show the main job: an alarm on the ingestion path, answered on a local cloud
    Demo(demo::Args),
    /// Check everything: formatting, lints, documentation, dependencies, template, tests
    Test {
        /// Only this step
        #[arg(long)]
        step: Option<Step>,
    },
    /// Build every function once, for `sam deploy` to take instead of what `sam build` makes
    Build {
        /// Instruction set to build for, the same as the stack's parameter
        #[arg(long, default_value = "arm64")]
        architecture: Architecture,
    },
    /// Measure cold start, replay and AWS round trips against what people use instead
    Bench(bench::Args),
    /// Play the kernel in simulated worlds, one for each seed
    Simulate {
        /// What the simulation is told; `cargo xtask simulate -- --help` lists it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Check that every remediation and crate keeps the repository's rules
    CheckLayout,
    /// Add a remediation that compiles, deploys and passes every check, and acts on nothing yet
    New {
        /// Its name, in kebab-case
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum CloudAction {
    /// Start it, or bring a running one up to date
    Up {
        #[command(flatten)]
        which: Which,
        /// Compile the functions without optimisation: quicker to build, larger and slower to run
        #[arg(long)]
        debug_functions: bool,
    },
    /// Stop it and remove all it left
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Tell which clouds run, where, and what their stacks hold
    Status,
    /// Print what a shell evaluates for AWS tools to use it: eval "$(cargo xtask cloud env)"
    Env {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// Name of the cloud; several run side by side
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Architecture {
    #[value(name = "arm64")]
    Arm64,
    #[value(name = "x86_64")]
    X86_64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = Box::pin(run(Arguments::parse().task)).await else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        eprintln!("  because: {cause}");
        source = cause.source();
    }
    if interrupted(&error) {
        ExitCode::from(130)
    } else {
        ExitCode::FAILURE
    }
}

fn interrupted(error: &Error) -> bool {
    match error {
        Error::Interrupted => true,
        Error::Step { source, .. } => interrupted(source),
        Error::Bench { source } => source.is_interrupted(),
        _ => false,
    }
}

async fn run(task: Task) -> Result<()> {
    match task {
        Task::Cloud { action } => on_cloud(action).await,
        Task::Demo(args) => Box::pin(interruptible(demo::run(args))).await,
        Task::Test { step } => checks::test(step).await,
        Task::Build { architecture } => interruptible(build(architecture)).await,
        Task::Bench(args) => bench::run(args).await.map_err(|source| Error::Bench {
            source: Box::new(source),
        }),
        Task::Simulate { arguments } => interruptible(checks::simulate(&arguments)).await,
        Task::CheckLayout => interruptible(layout::check()).await,
        Task::New { name } => interruptible(scaffold::new(&name)).await,
    }
}

async fn on_cloud(action: CloudAction) -> Result<()> {
    match action {
        CloudAction::Up {
            which,
            debug_functions,
        } => {
            let profile = if debug_functions {
                Profile::Debug
            } else {
                Profile::Release
            };
            let result = interruptible(cloud::up(&which.name, profile)).await;
            if matches!(result, Err(Error::Interrupted)) {
                cloud::down(&which.name).await?;
            }
            print!("{}", cloud::status(&result?.name).await?);
        }
        CloudAction::Down { which } => cloud::down(&which.name).await?,
        CloudAction::Status => {
            let names = cloud::names()?;
            if names.is_empty() {
                println!("no local cloud");
            }
            for name in names {
                print!("{}", cloud::status(&name).await?);
            }
        }
        CloudAction::Env { which } => {
            let cloud = Cloud::load(&which.name)?;
            if !cloud.is_running().await {
                return Err(Error::NoCloud { name: which.name });
            }
            for (name, value) in cloud.environment() {
                println!("export {name}='{}'", value.replace('\'', r"'\''"));
            }
        }
    }
    Ok(())
}

/// Leaves what `sam build` would leave: a template in the place where `sam deploy` looks first.
async fn build(architecture: Architecture) -> Result<()> {
    let progress = Progress::new("build");
    let tools = Tools::ensure(progress).await?;
    let name = match architecture {
        Architecture::Arm64 => "arm64",
        Architecture::X86_64 => "x86_64",
    };
    let artefacts = progress
        .long_step(
            format_args!("build the functions for {name}"),
            functions::build(&tools, Profile::Release, name),
        )
        .await?;
    let folder = root().join(".aws-sam/build");
    fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
    let template = folder.join("template.yaml");
    fs::write(&template, Template::read()?.with_code_in(&artefacts))
        .map_err(Error::file("write", &template))?;
    progress.say(format_args!(
        "wrote {}; `sam deploy` takes it",
        template.display()
    ));
    Ok(())
}
