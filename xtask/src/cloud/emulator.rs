//! The emulator's process, and the operator who uses it.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::{ACCOUNT, Place, REGION, processes, sdk_config};
use crate::command::log_tail;
use crate::tools::{self, Tools};
use crate::workspace::root;
use crate::{Error, Result};

const LAUNCHER: &str = "xtask/cloud/launcher.py";
const CODEDEPLOY: &str = "xtask/cloud/codedeploy.py";
const STEPFUNCTIONS: &str = "xtask/cloud/stepfunctions.py";
/// The emulator takes the account's number for its root user's access key, whatever the secret.
const ROOT_ACCESS_KEY_ID: &str = ACCOUNT;
const ROOT_SECRET_ACCESS_KEY: &str = "root";
const OPERATOR: &str = "operator";
const ADMINISTRATOR: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;

/// Another program may take a free port before the emulator does; that often in a row, something else is wrong.
const PORT_ATTEMPTS: usize = 5;
const START_PATIENCE: Duration = Duration::from_mins(1);
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);

/// A running emulator.
#[derive(Debug)]
pub(super) struct Emulator {
    pub(super) pid: i32,
    pub(super) port: u16,
}

impl Emulator {
    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The operator's credentials.
#[derive(Debug)]
pub(super) struct Operator {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: String,
}

/// All that decides which emulator runs.
pub(super) fn recipe() -> Result<String> {
    let mut recipe = String::new();
    for file in [LAUNCHER, CODEDEPLOY, STEPFUNCTIONS, tools::REQUIREMENTS] {
        let path = root().join(file);
        recipe += &fs::read_to_string(&path).map_err(Error::file("read", path))?;
    }
    Ok(recipe)
}

/// Starts the emulator on a free port and waits until it answers.
pub(super) async fn start(place: &Place, tools: &Tools) -> Result<Emulator> {
    let log = place.log_file();
    for _ in 0..PORT_ATTEMPTS {
        let port = free_port().await.map_err(|source| Error::Run {
            program: "emulator".to_owned(),
            source,
        })?;
        let mut child = spawn(port, place, tools, &log)?;
        match wait_until_ready(&mut child, port, &log).await {
            Ok(Some(pid)) => return Ok(Emulator { pid, port }),
            Ok(None) => {}
            Err(error) => {
                processes::end(&place.folder).await?;
                return Err(error);
            }
        }
    }
    Err(Error::Emulator {
        why: format!("it lost its port {PORT_ATTEMPTS} times"),
        log: log_tail(&log),
    })
}

async fn free_port() -> io::Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await?
        .local_addr()
        .map(|address| address.port())
}

fn spawn(port: u16, place: &Place, tools: &Tools, log: &Path) -> Result<Child> {
    let output = File::create(log).map_err(Error::file("create", log))?;
    let errors = output.try_clone().map_err(Error::file("write", log))?;
    let python = tools.path("python");
    let mut command = Command::new(&python);
    command
        .arg(root().join(LAUNCHER))
        .current_dir(&place.folder)
        .stdin(std::process::Stdio::null())
        .stdout(output)
        .stderr(errors)
        .env_clear();
    // Of the user's environment only what a program needs to run: no AWS account of theirs must leak in.
    for name in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // It runs functions with `node` and `python3`, which the machine need not have.
    command.env("PATH", tools.search_path());
    command.envs(settings(port, place));
    command.spawn().map_err(|source| Error::Run {
        program: python.display().to_string(),
        source,
    })
}

/// The emulator's environment, which the functions inherit.
fn settings(port: u16, place: &Place) -> Vec<(&'static str, String)> {
    let below = |name: &str| place.folder.join(name).display().to_string();
    let mut settings = vec![
        (processes::MARK, place.folder.display().to_string()),
        ("HOME", below("home")),
        ("TMPDIR", below("tmp")),
        ("S3_DATA_DIR", below("tmp/s3")),
        ("STATE_DIR", below("tmp/state")),
        // No daemon there: the emulator would remove containers of others at its start.
        ("DOCKER_HOST", format!("unix://{}", below("no-docker.sock"))),
        ("GATEWAY_PORT", port.to_string()),
        ("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")),
        (
            super::KEY_VALUE_STORES,
            super::key_value_stores_at(&format!("http://127.0.0.1:{port}")),
        ),
    ];
    let fixed = [
        ("LANG", "C.UTF-8"),
        ("PYTHONUNBUFFERED", "1"),
        ("BIND_HOST", "127.0.0.1"),
        ("MINISTACK_HOST", "127.0.0.1"),
        ("MINISTACK_ACCOUNT_ID", ACCOUNT),
        ("MINISTACK_REGION", REGION),
        ("AUTH", "true"),
        ("AWS_ACCESS_KEY_ID", ROOT_ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", ROOT_SECRET_ACCESS_KEY),
        // These listen on fixed ports, so that a second cloud could not have them.
        ("SFTP_ENABLED", "0"),
        ("IOT_MTLS_ENABLED", "0"),
        // AWS retries an asynchronous invocation after one minute and after two.
        ("LAMBDA_ASYNC_RETRY_BASE_SECONDS", "0.2"),
        ("LAMBDA_ASYNC_RETRY_MAX_SECONDS", "1"),
    ];
    settings.extend(fixed.map(|(name, value)| (name, value.to_owned())));
    settings
}

/// The process id once it answers, or `None` if another program took the port.
async fn wait_until_ready(child: &mut Child, port: u16, log: &Path) -> Result<Option<i32>> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let ended = child.try_wait().map_err(|source| Error::Run {
            program: LAUNCHER.to_owned(),
            source,
        })?;
        if let Some(status) = ended {
            let log = log_tail(log);
            if log.contains("in use") {
                return Ok(None);
            }
            return Err(Error::Emulator {
                why: format!("it ended ({status})"),
                log,
            });
        }
        if answers(port).await {
            return Ok(child.id().and_then(|pid| i32::try_from(pid).ok()));
        }
        if Instant::now() > deadline {
            return Err(Error::Emulator {
                why: format!(
                    "no answer on port {port} within {} s",
                    START_PATIENCE.as_secs()
                ),
                log: log_tail(log),
            });
        }
        sleep(POLL).await;
    }
}

/// Whether an emulator with IAM enforced is ready on this port.
pub(super) async fn answers(port: u16) -> bool {
    timeout(ANSWER_PATIENCE, health(port))
        .await
        .is_ok_and(|answer| {
            answer.is_ok_and(|text| {
                text.starts_with("HTTP/1.1 200") && text.contains(r#""auth": "enabled""#)
            })
        })
}

async fn health(port: u16) -> io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let request = format!(
        "GET /_ministack/health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Creates the user that everything but the emulator's own set-up signs as: an administrator, but not root, so that
/// its signatures are checked.
pub(super) async fn create_operator(endpoint: &str) -> Result<Operator> {
    const DOING: &str = "create the operator";
    let iam = aws_sdk_iam::Client::new(
        &sdk_config(endpoint, ROOT_ACCESS_KEY_ID, ROOT_SECRET_ACCESS_KEY).await,
    );
    iam.create_user()
        .user_name(OPERATOR)
        .send()
        .await
        .map_err(Error::aws(DOING))?;
    iam.put_user_policy()
        .user_name(OPERATOR)
        .policy_name("Administrator")
        .policy_document(ADMINISTRATOR)
        .send()
        .await
        .map_err(Error::aws(DOING))?;
    let created = iam
        .create_access_key()
        .user_name(OPERATOR)
        .send()
        .await
        .map_err(Error::aws(DOING))?;
    let key = created
        .access_key()
        .ok_or_else(|| Error::aws(DOING)("the answer holds no access key"))?;
    Ok(Operator {
        access_key_id: key.access_key_id().to_owned(),
        secret_access_key: key.secret_access_key().to_owned(),
    })
}
