//! The generated handler traits of `locator.Base` and `locator.Locator`, implemented for all
//! handlers: convert wire values and call the handler.

use std::time::Duration;

use log::warn;

use super::{BaseHandler, LocatorHandler};
use crate::location::Location;
use crate::locator::{self, BaseSyncHandler, LocatorSyncHandler};

impl<H: BaseHandler> BaseSyncHandler for H {
    fn handle_ping(&self) -> thrift::Result<()> {
        self.ping();
        Ok(())
    }

    fn handle_service_type(&self) -> thrift::Result<String> {
        Ok(self.service_type())
    }

    fn handle_service_types(&self) -> thrift::Result<Vec<String>> {
        Ok(self.service_types())
    }

    fn handle_debug(&self) -> thrift::Result<()> {
        self.debug();
        Ok(())
    }

    fn handle_die(&self) -> thrift::Result<()> {
        self.die();
        Ok(())
    }
}

impl<H: LocatorHandler> LocatorSyncHandler for H {
    fn handle_join(&self, location: locator::Location) -> thrift::Result<()> {
        if let Some(location) = parse_location("join", &location) {
            LocatorHandler::join(self, location);
        }
        Ok(())
    }

    fn handle_remove(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        if let Some(location) = parse_location("remove", &location) {
            self.remove(location, parse_locations(&authorities));
        }
        Ok(())
    }

    fn handle_add(
        &self,
        location: locator::Location,
        authorities: Vec<locator::Location>,
    ) -> thrift::Result<()> {
        if let Some(location) = parse_location("add", &location) {
            self.add(location, parse_locations(&authorities));
        }
        Ok(())
    }

    fn handle_get_all(&self) -> thrift::Result<Vec<locator::Location>> {
        Ok(self.get_all().iter().map(Into::into).collect())
    }

    fn handle_get_node(&self, key: Vec<u8>) -> thrift::Result<locator::Location> {
        let owner = self.get_node(&key);
        // Without an owner, a location that no node has: the original's type has no null.
        let none = || locator::Location::new(String::new(), 0);
        Ok(owner.as_ref().map_or_else(none, Into::into))
    }

    fn handle_exchange(&self, gossip: locator::Gossip) -> thrift::Result<locator::Gossip> {
        self.node().on_exchange(gossip)
    }

    fn handle_ping_req(&self, location: locator::Location) -> thrift::Result<bool> {
        let location = Location::try_from(&location).map_err(|e| e.to_string())?;
        Ok(self.node().ping(&location))
    }

    fn handle_tunnel(&self, location: locator::Location) -> thrift::Result<bool> {
        let location = Location::try_from(&location).map_err(|e| e.to_string())?;
        Ok(self.node().open_tunnel(&location))
    }

    fn handle_declare_gone(&self, location: locator::Location) -> thrift::Result<bool> {
        let location = Location::try_from(&location).map_err(|e| e.to_string())?;
        Ok(self.node().declare_gone(&location))
    }

    fn handle_events(&self, after: i64, timeout_ms: i32) -> thrift::Result<locator::Events> {
        let timeout = Duration::from_millis(timeout_ms.max(0) as u64);
        let events = self.node().events(after, timeout);
        events.ok_or_else(|| "too many callers wait for events".into())
    }

    fn handle_members(&self) -> thrift::Result<locator::Gossip> {
        Ok(self.node().full_state())
    }
}

/// Decodes the location of a oneway call. Logs why it is malformed, since there is no reply.
fn parse_location(method: &str, location: &locator::Location) -> Option<Location> {
    Location::try_from(location)
        .inspect_err(|e| warn!("ignored a {method}: {e}"))
        .ok()
}

/// Decodes locations. Leaves out malformed ones.
fn parse_locations(locations: &[locator::Location]) -> Vec<Location> {
    let parsed = locations.iter().map(Location::try_from);
    parsed.flatten().collect()
}
