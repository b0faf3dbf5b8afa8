//! `serve`: puts the parts together, runs them, and stops them in good order.
//!
//! ```text
//! lock data dir - database - identity - registry - hub - relay - admin socket - TLS port ... signal ... drain
//! ```

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use nix::fcntl::{Flock, FlockArg};
use ria_protocol::time::UnixTime;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::acme::challenge::Challenges;
use crate::acme::{self, Keeper};
use crate::admin;
use crate::admission::Admission;
use crate::anchor;
use crate::backup::schedule;
use crate::config::{Config, PublicUrl};
use crate::fellows;
use crate::housekeeping;
use crate::hub::{Hub, Report};
use crate::interest::{Interests, Tie};
use crate::links::Links;
use crate::metrics;
use crate::oidc::{OidcStartError, Provider};
use crate::people::Logins;
use crate::registry::{self, AuthorityMismatch, Registry, Unavailable};
use crate::relays::{RelayStartError, Relays};
use crate::rest::gate::Gate;
use crate::session::{Counters, Services};
use crate::store::{self, PasswordError, Store, StoreError};
use crate::tls::accept::{self, PageSource, Tls};
use crate::tls::authority::{AuthorityError, Identity};
use crate::tls::leaf::LeafError;
use crate::tls::operator::{Operator, OperatorError};
use crate::tls::succession::Authorities;
use crate::web;
use crate::witness::Witness;

/// Everything has stopped by then, or is left behind.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
const CERTIFICATES_CHECKED_EVERY: Duration = Duration::from_secs(60);
const BACKLOG: i32 = 1024;
/// Reports for other coordinators that wait; more are left out, and told with all the rest later.
const REPORTS: usize = 1024;

/// The coordinator can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the data directory {path} can't be used: {source}; make it one that can be written, or choose another with --data-dir or RIA_DATA_DIR",
        path = path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("another coordinator is running on the data directory {path}; stop it first, or choose another directory with --data-dir",
        path = .0.display())]
    Locked(PathBuf),
    #[error(
        "the database {} is missing or empty, and {} belongs to a coordinator that had one; restore the database from \
         a backup, or move that directory away to begin anew, without any member",
        database.display(),
        identity.display()
    )]
    NoDatabase { database: PathBuf, identity: PathBuf },
    #[error(
        "the database is empty, and {} belongs to a coordinator that had one; restore the database from a backup, or move \
         that directory away to begin anew, without any member",
        .0.display()
    )]
    EmptyDatabase(PathBuf),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Mismatch(#[from] AuthorityMismatch),
    #[error(transparent)]
    Registry(#[from] Unavailable),
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error("{0}")]
    Listen(String),
    #[error(transparent)]
    AdminSocket(#[from] admin::server::BindError),
    #[error(transparent)]
    Relay(#[from] crate::relays::RelayStartError),
    #[error(transparent)]
    Oidc(#[from] OidcStartError),
    #[error(transparent)]
    Acme(#[from] crate::https::RootsError),
}

/// A coordinator that serves.
#[derive(Debug)]
pub struct Coordinator {
    address: SocketAddr,
    services: Arc<Services>,
    admin_socket: PathBuf,
    data_dir: PathBuf,
    public_urls: Vec<PublicUrl>,
    tls: Tls,
    parts: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
    hub: JoinHandle<()>,
    /// Held until the end: nobody else may use the data directory.
    _lock: Flock<fs::File>,
}

/// The relay forgets whom it must refuse, the database does not.
async fn refuse_again(relays: &Relays, store: &Store, registry: &Registry) -> Result<(), StartError> {
    let since = relays.credentials_since(UnixTime::from(SystemTime::now()));
    store.removed_since(since).await?.into_iter().for_each(|node| relays.revoke(node));
    let world = registry.world();
    let members = world.networks.values().flat_map(|network| network.members.values());
    members
        .filter(|member| member.disabled.is_some() || member.is_login_due())
        .for_each(|member| relays.revoke(member.node));
    Ok(())
}

impl Coordinator {
    /// Starts everything; when this returns, it serves.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let lock = lock(&config.data_dir)?;
        let (store, identity) = open_store(config).await?;
        let authorities = Authorities::new(Identity::path(&config.data_dir), identity.authority);

        // Sockets are bound before anything runs, so that a mistake shows at once.
        let (tls, keeper) = page_tls(config, &authorities)?;
        let listener = listen(config.listen)?;
        let metrics_listener = config.metrics_listen.map(listen).transpose()?;
        let address = listener.local_addr().map_err(|e| StartError::Listen(e.to_string()))?;
        let draining = CancellationToken::new();
        let (relays, relay_task) =
            start_relays(config, address.port(), identity.relay_secret, draining.clone())?;
        let (logins, provider) = ways_in(config, &store).await?;
        let admin_listener = admin::server::bind(&config.admin_socket)?;

        anchor::check(&config.data_dir, &store).await?;
        let (registry, writer) =
            Registry::start(store.clone(), config.lifetimes.membership, reachable_urls(config)).await?;
        let witness = Witness::open(&store).await?;
        refuse_again(&relays, &store, &registry).await?;
        store.end_turn().await;
        let ((others, reports), (ties_out, ties)) = (mpsc::channel(REPORTS), mpsc::channel(REPORTS));
        let is_shared = store.instance().is_some();
        let (hub, hub_task) = Hub::start(registry.clone(), is_shared.then_some(others));
        let interests = Interests::start(is_shared.then_some(ties_out));
        let services = Arc::new(Services {
            registry,
            hub,
            admission: Admission::new(config.admission),
            links: Links::start(),
            interests,
            authorities,
            lifetimes: config.lifetimes,
            relays,
            witness,
            draining,
            tasks: TaskTracker::new(),
            counters: Counters::default(),
            logins,
            provider,
            laptops: config.laptops,
        });
        let sockets = Sockets { listener, metrics_listener, admin_listener, port: address.port() };
        let mut parts = spawn_parts(sockets, tls.clone(), (services.clone(), store.clone()), config);
        let keeper = keeper.map(|keeper| tokio::spawn(keeper.run(services.draining.clone())));
        parts.extend(relay_task.into_iter().chain(keeper));
        parts.extend(spawn_by_settings(config, &services, store, (reports, ties)));
        let coordinator = Self {
            address,
            services,
            admin_socket: config.admin_socket.clone(),
            data_dir: config.data_dir.clone(),
            public_urls: config.public_urls.clone(),
            tls,
            parts,
            writer,
            hub: hub_task,
            _lock: lock,
        };
        coordinator.announce(config);
        Ok(coordinator)
    }

    /// SHA-256 of the certificate that the pages show, where no browser knows its authority.
    pub fn page_fingerprint(&self) -> Option<String> {
        self.tls.page_fingerprint()
    }

    /// A link for the first owner, where nobody can log in who may decide on everything.
    pub async fn owner_link(&self) -> Option<String> {
        if self.services.registry.world().people.has_owner() {
            return None;
        }
        // Another coordinator on the database may have told of one, too.
        let made = self.services.logins.owner_link.add(UnixTime::from(SystemTime::now())).await;
        let failed = |error| tracing::warn!(%error, "there is no link for an owner now; make one later (user owner-link)");
        let (secret, _) = made.map_err(failed).ok()?;
        Some(admin::welcome_link(&self.public_urls, self.address.port(), &secret))
    }

    /// Where the TLS port is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn announce(&self, config: &Config) {
        let urls: Vec<_> = config.public_urls.iter().map(PublicUrl::as_str).collect();
        let world = self.services.registry.world();
        let networks: Vec<_> = world.networks.values().map(|n| n.info.name.as_str()).collect();
        tracing::info!(
            listen = %self.address,
            public_url = if urls.is_empty() { "not set: `key create` needs it".to_owned() } else { urls.join(", ") },
            relay = %self.services.relays,
            data_dir = %config.data_dir.display(),
            admin_socket = %self.admin_socket.display(),
            networks = networks.join(", "),
            nodes = world.networks.values().map(|n| n.members.len()).sum::<usize>(),
            version = env!("CARGO_PKG_VERSION"),
            "serving",
        );
        if !urls.is_empty() && !config.public_urls.iter().any(PublicUrl::is_reachable) {
            tracing::warn!(
                "no public URL can be reached from another machine; `key create` refuses until one can"
            );
        }
    }

    /// Tells all nodes that they should come back later, stores what is pending and ends.
    pub async fn stop(self) {
        let (malformed, lagged) = (self.services.counters.malformed(), self.services.counters.lagged());
        self.services.draining.cancel();
        self.services.tasks.close();
        let drained = timeout(DRAIN_TIMEOUT, async {
            self.services.tasks.wait().await;
            for part in self.parts {
                // A part that failed has said so.
                let _ = part.await;
            }
            // The hub stores when nodes were heard of last; the writer ends with the last way to it.
            let _ = self.services.hub.store().await;
            let head = self.services.registry.world().audit_head;
            if let Err(error) = anchor::drop_at(&self.data_dir, head) {
                tracing::warn!(%error, "the head of the audit log could not be noted beside the database");
            }
            drop(self.services);
            let _ = self.hub.await;
            let _ = self.writer.await;
        });
        if drained.await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        let _ = fs::remove_file(&self.admin_socket);
        tracing::info!(malformed, lagged, "stopped");
    }
}

/// The URLs of the settings that another machine can possibly reach.
fn reachable_urls(config: &Config) -> Vec<String> {
    let reachable = config.public_urls.iter().filter(|url| url.is_reachable());
    reachable.map(|url| url.as_str().to_owned()).collect()
}

pub(crate) fn lock(data_dir: &Path) -> Result<Flock<fs::File>, StartError> {
    let failed = |source| StartError::DataDir { path: data_dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let path = data_dir.join("lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        if error == nix::errno::Errno::EWOULDBLOCK {
            StartError::Locked(data_dir.to_owned())
        } else {
            failed(error.into())
        }
    })
}

/// Listens; where all IPv6 addresses are meant and there is no IPv6, on all IPv4 addresses.
pub(crate) fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = bind(address).or_else(|error| {
        let no_ipv6 = matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL));
        if no_ipv6 && address.is_ipv6() && address.ip().is_unspecified() {
            bind(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port()))
        } else {
            Err(error)
        }
    });
    bound.map_err(|error| {
        let advice = match error.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                "another program uses this port; stop it, or choose another with --listen or RIA_LISTEN"
            }
            Some(libc::EACCES | libc::EPERM) => {
                "ports below 1024 need root or CAP_NET_BIND_SERVICE; or choose another with --listen or RIA_LISTEN"
            }
            Some(libc::EADDRNOTAVAIL) => "this machine has no such address; choose another with --listen",
            Some(_) | None => "choose another address with --listen or RIA_LISTEN",
        };
        StartError::Listen(format!("can't listen on {address}: {error}; {advice}"))
    })
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

async fn renew_certificates(tls: Tls, services: Arc<Services>) {
    let mut tick = tokio::time::interval(CERTIFICATES_CHECKED_EVERY);
    let mut taken_over = services.authorities.subscribe();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            Ok(()) = taken_over.changed() => {}
            () = services.draining.cancelled() => return,
        }
        tls.renew_if_due();
        let ends = tls.operator().and_then(|operator| operator.ends()).map_or(0, |ends| ends.0);
        services.counters.page_certificate_ends.store(ends, Ordering::Relaxed);
    }
}

/// What the TLS port shows itself with, and who keeps a certificate by ACME, if one does.
fn page_tls(config: &Config, authorities: &Authorities) -> Result<(Tls, Option<Keeper>), StartError> {
    let hosts = config.public_urls.iter().map(|url| url.host().to_owned());
    let (source, challenges) = page_source(config)?;
    let tls = Tls::new(authorities, accept::page_names(hosts), source)?;
    let keeper = acme_keeper(config, challenges, &tls)?;
    Ok((tls, keeper))
}

/// The relay of this process, unless it is switched off, and what is known of all others.
fn start_relays(
    config: &Config,
    own_port: u16,
    secret: Zeroizing<[u8; 32]>,
    stop: CancellationToken,
) -> Result<(Relays, Option<JoinHandle<()>>), RelayStartError> {
    let tls_port = config.public_urls.first().map_or(own_port, PublicUrl::port);
    Relays::start(&config.relay, tls_port, secret, stop)
}

/// How people log in.
async fn ways_in(config: &Config, store: &Store) -> Result<(Logins, Option<Provider>), StartError> {
    let logins = Logins::of(store).await?;
    let provider = Provider::of(config, logins.shelf.clone())?;
    Ok((logins, provider))
}

/// Opens the database, and what belongs to it. A new database would know no member, and all of them would take that for their removal.
async fn open_store(config: &Config) -> Result<(Store, Identity), StartError> {
    let (url, present) = (config.database_url()?, Identity::directory(&config.data_dir));
    if let (Some(database), Some(identity)) = (store::missing_file(&url), &present) {
        return Err(StartError::NoDatabase { database, identity: identity.clone() });
    }
    let store = Store::open(&url).await?;
    // Another coordinator on the database waits while this one reads it.
    store.take_first_turn().await?;
    let known = registry::known_authority(&store).await?;
    if let (None, true, Some(identity)) = (known, store.instance().is_some(), present) {
        return Err(StartError::EmptyDatabase(identity));
    }
    let identity = Identity::load_or_create(&config.data_dir, known)?;
    registry::bind_authority(&store, &identity.authority).await?;
    Ok((store, identity))
}

/// Where connections come in.
struct Sockets {
    listener: TcpListener,
    metrics_listener: Option<TcpListener>,
    admin_listener: UnixListener,
    port: u16,
}

/// Starts all that runs beside writer, hub and relay.
fn spawn_parts(
    sockets: Sockets,
    tls: Tls,
    (services, store): (Arc<Services>, Store),
    config: &Config,
) -> Vec<JoinHandle<()>> {
    let admin = Arc::new(admin::server::Admin {
        services: services.clone(),
        store,
        public_urls: config.public_urls.clone(),
        data_dir: config.data_dir.clone(),
        port: sockets.port,
        chain: admin::chain::Chain::default(),
    });
    let gate = Arc::new(Gate::new(admin.clone()));
    let node = web::node_router(services.clone(), gate.clone());
    let pages = web::pages_router(services.clone(), gate);
    let draining = services.draining.clone();
    let mut parts = vec![
        tokio::spawn(accept::serve(sockets.listener, tls.clone(), (node, pages), services.clone())),
        tokio::spawn(renew_certificates(tls, services.clone())),
        tokio::spawn(housekeeping::run(services.clone())),
        tokio::spawn(crate::vigil::run(services.clone())),
        tokio::spawn(crate::surroundings::run(services.clone(), config.public_urls.clone())),
        spawn_admin(sockets.admin_listener, admin),
    ];
    parts.extend(sockets.metrics_listener.map(|listener| {
        tokio::spawn(metrics::serve(listener, metrics::coordinator_router(services), draining))
    }));
    parts
}

/// Whose certificate the pages show.
fn page_source(config: &Config) -> Result<(PageSource, Challenges), StartError> {
    let challenges = Challenges::default();
    let source = match (&config.page_certificate, &config.acme) {
        (Some(files), _) => PageSource::Given(Operator::load(files.clone())?),
        (None, Some(_)) => PageSource::Acme(acme::files(&config.data_dir), challenges.clone()),
        (None, None) => PageSource::Own,
    };
    Ok((source, challenges))
}

fn acme_keeper(config: &Config, challenges: Challenges, tls: &Tls) -> Result<Option<Keeper>, StartError> {
    let (Some(settings), Some(operator)) = (config.acme.clone(), tls.operator()) else { return Ok(None) };
    Ok(Some(Keeper::new(settings, &config.data_dir, challenges, operator)?))
}

/// Starts what only some coordinators have: backups that are made by themselves, and others on the same database.
fn spawn_by_settings(
    config: &Config,
    services: &Arc<Services>,
    store: Store,
    told: (mpsc::Receiver<Report>, mpsc::Receiver<Tie>),
) -> Vec<JoinHandle<()>> {
    let mut parts = Vec::new();
    if let Some(schedule) = config.backup.clone() {
        let source = (store.clone(), config.data_dir.clone());
        parts.push(tokio::spawn(schedule::run(schedule, services.clone(), source)));
    }
    if let Some(instance) = store.instance() {
        parts.push(tokio::spawn(fellows::run((store, instance), told, services.clone())));
        parts.push(tokio::spawn(fellows::follow_whom_others_put_out(services.clone())));
    }
    parts
}

fn spawn_admin(listener: UnixListener, admin: Arc<admin::server::Admin>) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = admin::server::serve(listener, admin).await {
            tracing::error!(%error, "the admin socket failed");
        }
    })
}
