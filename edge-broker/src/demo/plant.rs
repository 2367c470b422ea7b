//! The simulated plant: machines of a production line and a few vehicles, as they would report.
//!
//! Deterministic by seed. The values walk the way those of a milling machine do (air and process
//! temperature, speed, torque, vibration, tool wear); now and then a machine fails, which shows first in
//! vibration and torque, and is repaired after a while.

use std::fmt::Write as _;

/// One device that publishes.
pub(crate) struct Device {
    topic: String,
    name: String,
    kind: Kind,
    random: Random,
    sequence: u64,
}

enum Kind {
    Machine(Machine),
    Vehicle(Vehicle),
}

struct Machine {
    air_k: f64,
    process_k: f64,
    speed_rpm: f64,
    wear_min: f64,
    /// Reports left until a failing machine is repaired.
    failing_for: u32,
}

struct Vehicle {
    latitude: f64,
    longitude: f64,
    speed_kmh: f64,
    battery_percent: f64,
}

/// A plant with this many machines and vehicles.
pub(crate) fn devices(machines: usize, vehicles: usize, seed: u64) -> Vec<Device> {
    let machine = |index: usize| {
        let mut random = Random::new(seed ^ (index as u64 + 1).wrapping_mul(0x9e37_79b9));
        let name = format!("m{index:03}");
        let kind = Kind::Machine(Machine {
            air_k: 298.0 + random.normal(),
            process_k: 308.0 + random.normal(),
            speed_rpm: 1540.0 + 120.0 * random.normal(),
            wear_min: (random.unit() * 200.0).floor(),
            failing_for: 0,
        });
        let topic = format!("plant/line{}/{name}/telemetry", index / 8 + 1);
        Device { topic, name, kind, random, sequence: 0 }
    };
    let vehicle = |index: usize| {
        let mut random = Random::new(seed ^ (index as u64 + 1).wrapping_mul(0xc2b2_ae35_07d5));
        let name = format!("agv{index:02}");
        let kind = Kind::Vehicle(Vehicle {
            latitude: 52.52 + 0.001 * random.normal(),
            longitude: 13.40 + 0.001 * random.normal(),
            speed_kmh: 6.0,
            battery_percent: 60.0 + 40.0 * random.unit(),
        });
        let topic = format!("vehicles/{name}/telemetry");
        Device { topic, name, kind, random, sequence: 0 }
    };
    (0..machines).map(machine).chain((0..vehicles).map(vehicle)).collect()
}

impl Device {
    /// The MQTT topic it publishes to.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// Its name, which is its client id as well.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Writes the next report as JSON; returns its sequence number, from 0.
    pub(crate) fn report(&mut self, now_ms: i64, out: &mut String) -> u64 {
        let sequence = self.sequence;
        self.sequence += 1;
        out.clear();
        let (name, random) = (&self.name, &mut self.random);
        // Writing to a String cannot fail.
        let _ = match &mut self.kind {
            Kind::Machine(machine) => {
                machine.step(random);
                let torque = 60_000.0 / machine.speed_rpm
                    + 0.4 * random.normal()
                    + if machine.failing_for > 0 { 12.0 } else { 0.0 };
                let vibration = (2.1 + 0.25 * random.normal()).abs()
                    + if machine.failing_for > 0 { 5.0 } else { 0.0 };
                let state = if machine.failing_for > 0 { "failing" } else { "run" };
                write!(
                    out,
                    "{{\"ts\":{now_ms},\"device\":\"{name}\",\"seq\":{sequence},\"state\":\"{state}\",\
                     \"air_temperature_K\":{:.2},\"process_temperature_K\":{:.2},\
                     \"rotational_speed_rpm\":{:.0},\"torque_Nm\":{torque:.2},\
                     \"vibration_mm_s\":{vibration:.3},\"tool_wear_min\":{:.0}}}",
                    machine.air_k, machine.process_k, machine.speed_rpm, machine.wear_min,
                )
            }
            Kind::Vehicle(vehicle) => {
                vehicle.step(random);
                write!(
                    out,
                    "{{\"ts\":{now_ms},\"device\":\"{name}\",\"seq\":{sequence},\
                     \"lat\":{:.6},\"lon\":{:.6},\"speed_kmh\":{:.1},\"battery_percent\":{:.1}}}",
                    vehicle.latitude, vehicle.longitude, vehicle.speed_kmh, vehicle.battery_percent,
                )
            }
        };
        sequence
    }
}

impl Machine {
    fn step(&mut self, random: &mut Random) {
        self.air_k += 0.01 * random.normal();
        self.process_k += 0.01 * random.normal();
        self.speed_rpm += 2.0 * random.normal() + (1540.0 - self.speed_rpm) * 0.001;
        if random.unit() < 0.01 {
            self.wear_min = (self.wear_min + 1.0) % 240.0;
        }
        if self.failing_for > 0 {
            self.failing_for -= 1;
            self.process_k += 0.05;
        } else if random.unit() < 0.000_5 {
            self.failing_for = 40;
        }
    }
}

impl Vehicle {
    fn step(&mut self, random: &mut Random) {
        self.latitude += 0.000_01 * random.normal();
        self.longitude += 0.000_01 * random.normal();
        self.speed_kmh = (self.speed_kmh + 0.3 * random.normal()).clamp(0.0, 12.0);
        self.battery_percent = if self.battery_percent < 10.0 {
            100.0
        } else {
            self.battery_percent - 0.002 * self.speed_kmh
        };
    }
}

/// A small deterministic generator (SplitMix64): the demo needs no better one.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Near enough to a standard normal: the sum of twelve uniforms.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_json_numbered_from_zero_and_the_same_for_a_seed() {
        let mut first = devices(2, 1, 7);
        let mut second = devices(2, 1, 7);
        let (mut a, mut b) = (String::new(), String::new());
        for round in 0..100 {
            for (left, right) in first.iter_mut().zip(&mut second) {
                assert_eq!(left.report(1_000, &mut a), round);
                right.report(1_000, &mut b);
                assert_eq!(a, b);
                let json: serde_json::Value = serde_json::from_str(&a).unwrap();
                assert_eq!(json["seq"], round);
                assert_eq!(json["device"], left.name());
            }
        }
    }
}
