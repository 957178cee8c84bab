//! The local cloud: an AWS emulator of its own with this checkout's `template.yaml` deployed on it.
//!
//! Several can run side by side, each under a name. Everything a cloud writes, its temporary files included, is below
//! `.forgeguard/cloud/<name>`, and every process it starts carries that folder in its environment: that is how the
//! next `up` or `down` finds all that an earlier run left, however it ended.

mod deploy;
mod emulator;
mod processes;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_cloudformation::config::Credentials;
use serde::{Deserialize, Serialize};

use crate::functions::{self, Profile};
use crate::lock::Lock;
use crate::progress::Progress;
use crate::tools::Tools;
use crate::workspace::{architecture, state};
use crate::{Error, Result};

/// The environment variable that names a cloud's state file, for programs that use a cloud they did not start.
pub const STATE_FILE: &str = "FORGEGUARD_CLOUD";

/// The variable that gives SDKs the endpoint of `CloudFront`'s key-value stores.
pub const KEY_VALUE_STORES: &str = "AWS_ENDPOINT_URL_CLOUDFRONT_KEYVALUESTORE";

/// The endpoint of key-value stores at an endpoint on this machine. The SDK puts the account before the host, which
/// makes a name only where the host has one.
#[must_use]
pub fn key_value_stores_at(endpoint: &str) -> String {
    endpoint.replace("127.0.0.1", "localhost")
}

/// The cloud that is meant when none is named.
pub const DEFAULT_NAME: &str = "default";

/// The name of the deployed stack.
pub const STACK: &str = "forgeguard";

const REGION: &str = "us-east-1";
const ACCOUNT: &str = "123456789012";

/// A local cloud, as its state file describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloud {
    /// Its name.
    pub name: String,
    /// Where it listens, such as `http://127.0.0.1:4566`.
    pub endpoint: String,
    /// The emulator's port.
    pub port: u16,
    /// The emulator's process.
    pub pid: i32,
    /// The account that owns its resources.
    pub account_id: String,
    /// Their region.
    pub region: String,
    /// The operator's access key.
    pub access_key_id: String,
    /// The operator's secret.
    pub secret_access_key: String,
    /// The deployed stack.
    pub stack_name: String,
    /// The stack's outputs; empty until it is deployed.
    pub outputs: BTreeMap<String, String>,
}

impl Cloud {
    /// The cloud of this name.
    pub fn load(name: &str) -> Result<Self> {
        let path = Place::of(name)?.state_file();
        if path.is_file() {
            Self::read(&path)
        } else {
            Err(Error::NoCloud {
                name: name.to_owned(),
            })
        }
    }

    /// The cloud that `FORGEGUARD_CLOUD` names, or else the default one.
    pub fn from_env() -> Result<Self> {
        match std::env::var_os(STATE_FILE) {
            Some(path) => Self::read(Path::new(&path)),
            None => Self::load(DEFAULT_NAME),
        }
    }

    /// The cloud that a state file describes.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read(path).map_err(Error::file("read", path))?;
        serde_json::from_slice(&text).map_err(|source| Error::Json {
            path: path.to_owned(),
            source,
        })
    }

    /// An output of the stack.
    pub fn output(&self, name: &str) -> Result<&str> {
        let value = self.outputs.get(name).map(String::as_str);
        value.ok_or_else(|| Error::Output {
            stack: self.stack_name.clone(),
            name: name.to_owned(),
        })
    }

    /// Its state file.
    pub fn state_file(&self) -> Result<PathBuf> {
        Ok(Place::of(&self.name)?.state_file())
    }

    /// The emulator's log.
    pub fn log_file(&self) -> Result<PathBuf> {
        Ok(Place::of(&self.name)?.log_file())
    }

    /// What any AWS tool needs in its environment to use this cloud as the operator.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 7] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            (KEY_VALUE_STORES, key_value_stores_at(&self.endpoint)),
            ("AWS_REGION", self.region.clone()),
            ("AWS_DEFAULT_REGION", self.region.clone()),
            ("AWS_ACCESS_KEY_ID", self.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.secret_access_key.clone()),
            ("STACK_NAME", self.stack_name.clone()),
        ]
    }

    /// What the AWS SDK needs to use this cloud as the operator.
    pub async fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.endpoint, &self.access_key_id, &self.secret_access_key).await
    }

    /// Whether its emulator runs and answers.
    pub async fn is_running(&self) -> bool {
        let Ok(place) = Place::of(&self.name) else {
            return false;
        };
        processes::of(&place.folder).is_ok_and(|pids| pids.contains(&self.pid))
            && emulator::answers(self.port).await
    }

    fn save(&self) -> Result<()> {
        let path = Place::of(&self.name)?.state_file();
        let text = serde_json::to_vec_pretty(self).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        // Whole or not at all, and for this user alone: it holds the operator's secret.
        let draft = path.with_extension("draft");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)
            .map_err(Error::file("create", &draft))?;
        file.write_all(&text)
            .map_err(Error::file("write", &draft))?;
        fs::rename(&draft, &path).map_err(Error::file("write", path))
    }
}

async fn sdk_config(endpoint: &str, access_key_id: &str, secret_access_key: &str) -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::from_static(REGION))
        .credentials_provider(Credentials::new(
            access_key_id,
            secret_access_key,
            None,
            None,
            "local cloud",
        ))
        .load()
        .await
}

/// Where a cloud keeps its files.
#[derive(Debug, Clone)]
struct Place {
    name: String,
    folder: PathBuf,
}

impl Place {
    fn of(name: &str) -> Result<Self> {
        let allowed =
            |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(allowed) {
            return Err(Error::CloudName {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            name: name.to_owned(),
            folder: clouds().join(name),
        })
    }

    fn state_file(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("emulator.log")
    }

    /// Keeps what the emulator was made of.
    fn mark(&self, recipe: &str) -> Result<()> {
        let path = self.recipe_file();
        fs::write(&path, recipe).map_err(Error::file("write", path))
    }

    /// Whether the emulator was made of this.
    fn is_of(&self, recipe: &str) -> bool {
        fs::read_to_string(self.recipe_file()).is_ok_and(|kept| kept == recipe)
    }

    fn recipe_file(&self) -> PathBuf {
        self.folder.join("recipe.txt")
    }

    async fn lock(&self, progress: Progress) -> Result<Lock> {
        Lock::acquire(&state().join(format!("{}.lock", self.name)), progress).await
    }

    /// Ends every process of the cloud and removes every file of it.
    async fn clear(&self) -> Result<()> {
        processes::end(&self.folder).await?;
        if self.folder.exists() {
            fs::remove_dir_all(&self.folder).map_err(Error::file("remove", &self.folder))?;
        }
        Ok(())
    }

    fn create(&self) -> Result<()> {
        fs::create_dir_all(clouds()).map_err(Error::file("create", clouds()))?;
        for folder in [
            self.folder.clone(),
            self.folder.join("tmp"),
            self.folder.join("home"),
        ] {
            fs::DirBuilder::new()
                .mode(0o700)
                .create(&folder)
                .map_err(Error::file("create", &folder))?;
        }
        Ok(())
    }
}

fn clouds() -> PathBuf {
    state().join("cloud")
}

/// Brings a cloud up with the checkout's functions and template on it.
///
/// A running one keeps its data and gets the current build, unless the emulator that it should run is another by now.
/// Whatever else an earlier run left is removed first.
pub async fn up(name: &str, profile: Profile) -> Result<Cloud> {
    up_with(name, profile, &[]).await
}

/// The same, with parameters of the template besides the defaults.
pub async fn up_with(name: &str, profile: Profile, parameters: &[(&str, String)]) -> Result<Cloud> {
    let progress = Progress::new("cloud up");
    let place = Place::of(name)?;
    let _lock = place.lock(progress).await?;
    let tools = Tools::ensure(progress).await?;
    let mut cloud = match Cloud::load(name) {
        Ok(cloud) if cloud.is_running().await && place.is_of(&emulator::recipe()?) => {
            progress.say(format_args!("{name} already runs at {}", cloud.endpoint));
            cloud
        }
        _ => start(&place, &tools, progress).await?,
    };
    let artefacts = progress
        .long_step(
            "build the functions",
            functions::build(&tools, profile, architecture()),
        )
        .await?;
    cloud.outputs = progress
        .step(
            "deploy template.yaml",
            deploy::deploy(&cloud, &place.folder, &tools, &artefacts, parameters),
        )
        .await?;
    cloud.save()?;
    Ok(cloud)
}

async fn start(place: &Place, tools: &Tools, progress: Progress) -> Result<Cloud> {
    place.clear().await?;
    place.create()?;
    place.mark(&emulator::recipe()?)?;
    let emulator = progress
        .step("start the emulator", emulator::start(place, tools))
        .await?;
    let operator = progress
        .step(
            "create the operator",
            emulator::create_operator(&emulator.endpoint()),
        )
        .await?;
    let cloud = Cloud {
        name: place.name.clone(),
        endpoint: emulator.endpoint(),
        port: emulator.port,
        pid: emulator.pid,
        account_id: ACCOUNT.to_owned(),
        region: REGION.to_owned(),
        access_key_id: operator.access_key_id,
        secret_access_key: operator.secret_access_key,
        stack_name: STACK.to_owned(),
        outputs: BTreeMap::new(),
    };
    cloud.save()?;
    Ok(cloud)
}

/// Takes a cloud down: its processes end and its files are removed. One that is not there is down already.
pub async fn down(name: &str) -> Result<()> {
    let place = Place::of(name)?;
    let lock = place.lock(Progress::new("cloud down")).await?;
    place.clear().await?;
    drop(lock);
    // Gone only when nothing else is in them.
    let _ = fs::remove_dir(clouds());
    let _ = fs::remove_dir(state());
    Ok(())
}

/// The names of all clouds of this checkout, running or left over.
pub fn names() -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(clouds()) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("read", clouds()))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// What is known of a cloud, for a reader.
pub async fn status(name: &str) -> Result<String> {
    let place = Place::of(name)?;
    let Ok(cloud) = Cloud::load(name) else {
        return Ok(format!(
            "{name}: left over from a run that did not finish; `cargo xtask cloud down --name {name}`\n"
        ));
    };
    let state = if cloud.is_running().await {
        "running"
    } else {
        "dead"
    };
    let mut text = format!(
        "{name}: {state}, {}, process {}, log {}\n",
        cloud.endpoint,
        cloud.pid,
        place.log_file().display()
    );
    for (output, value) in &cloud.outputs {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {output} = {value}");
    }
    Ok(text)
}
