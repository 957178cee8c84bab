//! A headless Chromium of a test's own, driven over the `WebDriver` protocol, and what a person would see in it.

use std::env;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::error::{WebDriverError, WebDriverResult};
use thirtyfour::session::http::{Body, HttpClient};
use thirtyfour::{ChromiumLikeCapabilities as _, Cookie, DesiredCapabilities, WebDriver};
use tokio::fs;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use xtask::progress::Progress;
use xtask::tools::Tools;

use crate::failure::{During, Failure, Result, ensure};
use crate::world::SOON;

/// The file of axe-core in the pinned package that carries it.
const AXE: &str = "axe_playwright_python/axe.min.js";
/// What chromedriver says once it listens.
const STARTED: &str = "started successfully on port ";
/// How long one command may take: axe-core is the slowest, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_mins(2);
/// Chromium asks nobody but the local cloud, and runs as root in a container.
const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// What a person prefers to read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Dark text on a light ground.
    Light,
    /// Light text on a dark ground.
    Dark,
}

impl Scheme {
    /// Its name in style sheets.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// One tab of a Chromium with an empty profile.
#[derive(Debug)]
pub struct Browser {
    driver: WebDriver,
    axe: String,
}

/// Runs a test in a browser of its own, and ends the browser however the test ends.
pub async fn browse(test: impl AsyncFnOnce(&Browser) -> Result) -> Result {
    let chromium = installed("chromium", "chromium")?;
    let tools = Tools::ensure(Progress::new("browser")).await?;
    let axe = tools.library(AXE)?;
    let axe = fs::read_to_string(&axe).await.during(AXE)?;
    let mut server = Chromedriver::start().await?;
    let profile = TempDir::new()?;
    let driver = session(server.port, &chromium, profile.path()).await;
    let driver = driver.during("starting Chromium")?;
    let browser = Browser { driver, axe };
    let ended = AssertUnwindSafe(test(&browser)).catch_unwind().await;
    // Chromium ends with its session; it would outlive chromedriver.
    let closed = browser.driver.quit().await.during("ending Chromium");
    let stopped = server.child.kill().await.during("ending chromedriver");
    match ended {
        Ok(ended) => ended.and(closed).and(stopped),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Browser {
    /// Opens a URL.
    pub async fn open(&self, url: &str) -> Result {
        self.driver.goto(url).await.during(url)
    }

    /// Loads the page again, as the button does.
    pub async fn reload(&self) -> Result {
        self.driver.refresh().await.during("reloading")
    }

    /// Goes back to the page before, as the button does.
    pub async fn back(&self) -> Result {
        self.driver.back().await.during("going back")
    }

    /// Makes the window so wide and high, for a person who prefers `scheme`.
    pub async fn look(&self, scheme: Scheme, width: u32, height: u32) -> Result {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.tell("Emulation.setDeviceMetricsOverride", size)
            .await?;
        let feature = json!({"name": "prefers-color-scheme", "value": scheme.name()});
        self.tell("Emulation.setEmulatedMedia", json!({"features": [feature]}))
            .await
    }

    /// Sends these headers with every request from now on, in place of those before.
    pub async fn send_headers(&self, headers: &[(&str, &str)]) -> Result {
        self.tell("Network.enable", json!({})).await?;
        let headers: Value = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)))
            .collect();
        self.tell("Network.setExtraHTTPHeaders", json!({"headers": headers}))
            .await
    }

    /// Keeps a cookie for the host of the page.
    pub async fn keep_cookie(&self, name: &str, value: &str) -> Result {
        let cookie = Cookie::new(name, value);
        self.driver.add_cookie(cookie).await.during(name)
    }

    /// Forgets a cookie.
    pub async fn forget_cookie(&self, name: &str) -> Result {
        self.driver.delete_cookie(name).await.during(name)
    }

    /// The value of an expression in the page.
    pub async fn value(&self, expression: &str) -> Result<Value> {
        let script = format!("return {expression}");
        let value = self.driver.execute(script, Vec::new()).await;
        Ok(value.during(expression)?.json().clone())
    }

    /// The text that the page shows.
    pub async fn text(&self) -> Result<String> {
        let text = self.value("document.body.innerText").await?;
        Ok(text.as_str().unwrap_or_default().trim().to_owned())
    }

    /// Keeps a picture of the window.
    pub async fn keep_picture(&self, file: &Path) -> Result {
        let what = file.display().to_string();
        let picture = self.driver.screenshot_as_png().await.during(&what)?;
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).await.during(&what)?;
        }
        fs::write(file, picture).await.during(&what)
    }

    /// Fails with what axe-core finds to keep a person from using the page.
    pub async fn is_accessible(&self) -> Result {
        let run = format!(
            "{}; const done = arguments[arguments.length - 1];
            axe.run().then(found => done(found), error => done({{error: String(error)}}))",
            self.axe
        );
        let found = self.driver.execute_async(run, Vec::new()).await;
        let found = found.during("axe-core")?.json().clone();
        let violations = found["violations"].as_array();
        let violations = violations.during(&format!("axe-core: {}", found["error"]))?;
        let named: Vec<_> = violations.iter().map(violation).collect();
        ensure(named.is_empty(), || {
            format!("axe-core: {}", named.join("; "))
        })?;
        // No violation is news only if rules were applied.
        let passes = found["passes"].as_array().map_or(0, Vec::len);
        ensure(passes > 10, || {
            format!("axe-core applied {passes} rules alone")
        })
    }

    async fn tell(&self, command: &str, parameters: Value) -> Result {
        let told = self.driver.cdp().send_raw(command, parameters).await;
        told.map(drop).during(command)
    }
}

/// A violation's id, and the elements that it is of.
fn violation(violation: &Value) -> String {
    let nodes = violation["nodes"].as_array();
    let nodes = nodes.into_iter().flatten();
    let targets: Vec<_> = nodes.map(|node| node["target"].to_string()).collect();
    format!("{} at {}", violation["id"], targets.join(", "))
}

/// Where a program of one of Debian's packages is.
fn installed(program: &str, package: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|folder| folder.join(program));
    places.find(|place| place.is_file()).ok_or_else(|| {
        Failure::new(format!(
            "{program} of the Debian package {package} is missing: apt-get install chromium chromium-driver"
        ))
    })
}

/// The server that drives Chromium.
struct Chromedriver {
    child: Child,
    port: u16,
    // It would die of its next word if nobody held the other end.
    _said: BufReader<ChildStdout>,
}

impl Chromedriver {
    /// Starts it on a port that it finds free itself.
    async fn start() -> Result<Self> {
        let mut child = Command::new(installed("chromedriver", "chromium-driver")?)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .during("chromedriver")?;
        let said = child.stdout.take().during("chromedriver's words")?;
        let mut said = BufReader::new(said);
        let port = timeout(SOON, port(&mut said)).await;
        Ok(Self {
            child,
            port: port.during("the start of chromedriver")??,
            _said: said,
        })
    }
}

/// The port that chromedriver listens on, by what it says.
async fn port(said: &mut BufReader<ChildStdout>) -> Result<u16> {
    let mut line = String::new();
    while said.read_line(&mut line).await? > 0 {
        if let Some((_, port)) = line.split_once(STARTED) {
            let port = port.trim().trim_end_matches('.');
            return port.parse().during(port);
        }
        line.clear();
    }
    Err(Failure::new("chromedriver ended before it listened"))
}

async fn session(port: u16, chromium: &Path, profile: &Path) -> Result<WebDriver> {
    let mut wanted = DesiredCapabilities::chrome();
    wanted.set_binary(&chromium.to_string_lossy())?;
    for flag in FLAGS {
        wanted.add_arg(flag)?;
    }
    wanted.add_arg(&format!("--user-data-dir={}", profile.display()))?;
    let driver = WebDriver::builder(format!("http://127.0.0.1:{port}"), wanted)
        .client(Plain::new())
        .connect()
        .await?;
    Ok(driver)
}

/// Plain HTTP on the loopback interface, which is all that chromedriver speaks.
struct Plain(Client<HttpConnector, Full<Bytes>>);

impl Plain {
    fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }
}

#[async_trait::async_trait]
impl HttpClient for Plain {
    async fn send(&self, request: Request<Body<'_>>) -> WebDriverResult<Response<Bytes>> {
        let request = request.map(|body| match body {
            Body::Empty => Full::default(),
            Body::Json(body) => Full::from(body.to_string()),
        });
        let failed =
            |error: &dyn std::error::Error| WebDriverError::RequestFailed(error.to_string());
        let answer = async {
            let answer = self
                .0
                .request(request)
                .await
                .map_err(|error| failed(&error))?;
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.map_err(|error| failed(&error))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        timeout(PATIENCE, answer)
            .await
            .unwrap_or_else(|late| Err(failed(&late)))
    }

    async fn new(&self) -> Arc<dyn HttpClient> {
        Arc::new(Self::new())
    }
}
