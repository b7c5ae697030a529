//! A steady stream of requests through the gateway, so that a lost one shows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// Pause between the requests of one client.
const PAUSE: Duration = Duration::from_millis(10);
const CLIENTS: usize = 4;

/// What a load saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Answers with status 200.
    pub good: u64,
    /// Everything else, in words.
    pub failures: Vec<String>,
    /// Last body.
    pub last: String,
}

/// Clients that ask until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Load {
    /// Starts asking `http://ADDRESS/` with this Host.
    pub fn start(address: SocketAddr, host: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..CLIENTS)
            .map(|_| {
                let stop = stop.clone();
                tokio::spawn(async move {
                    let mut tally = Tally::default();
                    while !stop.load(Ordering::Relaxed) {
                        match get(address, host).await {
                            Ok(body) => {
                                tally.good += 1;
                                tally.last = body;
                            }
                            Err(reason) => tally.failures.push(reason),
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                    tally
                })
            })
            .collect();
        Self { stop, clients }
    }

    /// Stops and adds up.
    pub async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Tally::default();
        for client in self.clients {
            let Ok(tally) = client.await else { continue };
            total.good += tally.good;
            total.failures.extend(tally.failures);
            total.last = tally.last;
        }
        total
    }
}

/// One request on an own connection; the body if the status is 200.
async fn get(address: SocketAddr, host: &str) -> Result<String, String> {
    const LIMIT: Duration = Duration::from_secs(10);
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer =
        tokio::time::timeout(LIMIT, exchange).await.map_err(|_| "no answer in time".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if status.contains(" 200 ") {
        Ok(body.to_owned())
    } else {
        Err(format!("{status}: {}", body.trim()))
    }
}
