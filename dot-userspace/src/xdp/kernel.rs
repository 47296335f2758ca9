//! Loads the object: its maps, and the programs, ready to attach.
//!
//! Before: `pins` may hold maps of a predecessor. After: `settings`, `list`, `bans` and `costs` write the maps; packets
//! are counted once `holder` attaches the programs.
//! Holds: only maps, with which nothing can be attached or detached.
//! Never: attaches.

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray},
};
use dot_common::{
    maps::{self, GLOBAL_PORT_DO53, GLOBAL_PORTS_DOT, GLOBAL_WORKERS},
    settings::Ports,
};

use super::{
    XdpError,
    attach::{Programs, load_proxy, refused, take},
    bans::Bans,
    costs::Costs,
    list::Lists,
    local::Local,
    notices::Sent,
    pins::Pins,
    proxied::Proxied,
    settings::{Prefixes, Written},
    tail_calls::TailCalls,
    told::Told,
    worker_status::Tables,
};
use crate::config;

/// The maps of the loaded object.
pub(super) struct Kernel {
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) settings: Written,
    pub(super) bans: Bans,
    pub(super) costs: Costs,
    pub(super) lists: Lists,
    pub(super) local: Local,
    pub(super) notices: Sent,
    pub(super) told: Told,
    /// This map is only read here; XDP writes it.
    pub(super) rates: HashMap<MapData, u64, u64>,
    pub(super) tail_calls: TailCalls,
    pub(super) proxied: Proxied,
    #[cfg(feature = "debug-log")]
    pub(super) packet_log: Option<super::packet_log::PacketLog>,
}

impl Kernel {
    /// Loads all maps and both programs. `pins` gives the place of a predecessor's maps, and whether counters continue
    /// from them.
    pub(super) fn load(
        config: &config::Xdp,
        ports: Ports,
        (pins, continues): (Option<&Pins>, bool),
        prefixes: Prefixes,
        tables: &mut Tables,
    ) -> Result<(Self, Programs), XdpError> {
        let mut tail_calls = TailCalls::of(config);
        let start = Start { ports, workers: tables.workers(), pins, continues };
        let (mut object, has_proxy) = start.load(&mut tail_calls)?;
        if let Some(pins) = pins {
            if !continues {
                pins.keep(&object, maps::COUNTERS);
            }
            pins.keep(&object, maps::SETTINGS);
        }
        let counters = PerCpuArray::try_from(take(&mut object, maps::COUNTERS)?)
            .map_err(|error| refused(maps::COUNTERS, &error))?;
        let settings = Written::take(&mut object)?;
        let bans = Bans::take(&mut object, prefixes)?;
        let lists = Lists::take(&mut object)?;
        let local = Local::take(&mut object)?;
        let costs = Costs::take(&mut object)?;
        let notices = Sent::take(&mut object)?;
        let told = Told::take(&mut object)?;
        let rates =
            HashMap::try_from(take(&mut object, maps::RATE)?).map_err(|error| refused(maps::RATE, &error))?;
        tail_calls.fill_slots(&mut object)?;
        let proxied = Proxied::take(&mut object)?;
        let mut programs = Programs::load(object, has_proxy)?;
        tables.adopt(programs.object())?;
        tables.adopt_syn_times(programs.object())?;
        #[cfg(feature = "debug-log")]
        let packet_log = super::packet_log::take(programs.object());
        let kernel = Self {
            counters,
            settings,
            bans,
            costs,
            lists,
            local,
            notices,
            told,
            rates,
            tail_calls,
            proxied,
            #[cfg(feature = "debug-log")]
            packet_log,
        };
        Ok((kernel, programs))
    }

    /// Finds this machine's addresses, and writes them into the kernel half's maps.
    pub(super) fn know_addresses(&mut self) -> Result<(), XdpError> {
        self.local.look();
        if self.local.has_changed {
            self.settings.set_local(self.local.versions)?;
            self.local.has_changed = false;
        }
        Ok(())
    }
}

/// What the object is loaded with.
struct Start<'a> {
    ports: Ports,
    workers: u32,
    pins: Option<&'a Pins>,
    continues: bool,
}

impl Start<'_> {
    /// Loads the object, and the SYN proxy of it where the config wants it and the kernel can have it. If the kernel refuses
    /// the proxy, the object is loaded once more with XDP's cookies: which programs follow the judge is a constant of it.
    fn load(&self, tail_calls: &mut TailCalls) -> Result<(Ebpf, bool), XdpError> {
        let mut object = self.load_object(tail_calls)?;
        if !tail_calls.cookies.is_proxy() {
            return Ok((object, false));
        }
        let Err(error) = load_proxy(&mut object) else { return Ok((object, true)) };
        tracing::warn!("xdp: no SYN proxy, XDP makes the cookies: {error}");
        tail_calls.cookies.proxy_refused(error.to_string());
        drop(object);
        self.load_object(tail_calls).map(|object| (object, false))
    }

    fn load_object(&self, tail_calls: &mut TailCalls) -> Result<Ebpf, XdpError> {
        let mut loader = EbpfLoader::new();
        let (dot, do53) = self.ports.pack();
        loader.override_global(GLOBAL_PORTS_DOT, &dot, true).override_global(GLOBAL_PORT_DO53, &do53, true);
        loader.override_global(GLOBAL_WORKERS, &self.workers, true);
        loader.map_max_entries(maps::WORKERS, self.workers);
        let image = tail_calls.cookies.object();
        let constants = tail_calls.constants();
        constants.give_to(&mut loader);
        if let Some(pins) = self.pins {
            for (name, path) in pins.flows() {
                loader.map_pin_path(name, path);
            }
            loader.map_pin_path(maps::BANS, pins.bans());
            if self.continues {
                loader.map_pin_path(maps::COUNTERS, pins.counters());
            }
        }
        // The map of listeners belongs to the steering programs, each of which has its own.
        loader.map_max_entries(maps::SOCKETS, 1);
        loader.load(&image).map_err(|error| refused("the BPF object", &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::SynCookies, xdp::proxy::Proxy};

    /// Goal: where the kernel refuses the proxy, XDP's cookie program is loaded in its place. Method: as root, a proxy that calls
    /// a number which no function has.
    #[test]
    fn xdps_cookies_replace_a_refused_proxy() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED xdps_cookies_replace_a_refused_proxy: BPF programs need root");
            return;
        }
        let config = config::Xdp { syn_cookies: SynCookies::Proxy, ..config::Xdp::default() };
        let mut tail_calls = TailCalls::of(&config);
        tail_calls.cookies.put_proxy(Proxy { number: u32::MAX >> 1, secret: [1, 2] });
        let ports = Ports { dot: [853, 0, 0, 0], do53: 53 };
        let start = Start { ports, workers: 1, pins: None, continues: false };
        let (mut object, has_proxy) = start.load(&mut tail_calls).expect("the object loads");
        assert!(!has_proxy && tail_calls.cookies.are_wanted());
        tail_calls.fill_slots(&mut object).expect("the slots are filled");
        let loaded = tail_calls.programs(&object).expect("the kernel describes them");
        assert!(loaded.iter().any(|program| program.name == maps::PROGRAM_COOKIE), "{loaded:?}");
    }
}
