//! The workload: JSON telemetry of machines that take turns, deterministic by seed.
//!
//! Values walk like those of the AI4I 2020 data set (temperatures, speed, torque, tool wear) with
//! the noise and the digits that real gateways send. A full payload is about 207 bytes, a compact
//! one about 100. Full payloads alone compress with zstd 3 to about 0.17 of their size in pieces
//! of 16 messages and 0.11 in pieces of 1,000.

use std::io::Write;

use crate::random::Random;

/// Start of the data's own clock: 2026-01-01T00:00:00Z, in milliseconds.
const START_MS: u64 = 1_767_225_600_000;

/// An endless source of telemetry.
#[derive(Debug, Clone)]
pub struct Telemetry {
    random: Random,
    machines: Vec<Machine>,
    turn: u64,
    messages_per_second: f64,
}

#[derive(Debug, Clone)]
struct Machine {
    air_k: f64,
    process_k: f64,
    speed_rpm: f64,
    wear_min: u64,
}

/// One reading, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// The MQTT topic, `plant/lineL/mNNN/telemetry`.
    pub topic: String,
    /// The payload, JSON.
    pub payload: String,
}

impl Telemetry {
    /// `machines` machines (at least one) whose clocks assume 1,000 messages a second in all.
    pub fn new(machines: usize, seed: u64) -> Self {
        let mut random = Random::seeded(seed);
        let machines = (0..machines.max(1))
            .map(|_| Machine {
                air_k: 298.0 + random.gauss(0.0, 1.0),
                process_k: 308.0 + random.gauss(0.0, 1.0),
                speed_rpm: random.gauss(1540.0, 120.0),
                wear_min: random.below(200),
            })
            .collect();
        Self { random, machines, turn: 0, messages_per_second: 1_000.0 }
    }

    /// The MQTT topic of a machine.
    pub fn topic_of(machine: usize) -> String {
        format!("plant/line{}/m{machine:03}/telemetry", machine / 16 + 1)
    }

    /// The next machine's reading, about 207 bytes of payload.
    pub fn reading(&mut self) -> Reading {
        let (machine, seq, ts) = self.step();
        let random = &mut self.random;
        let state = &self.machines[machine];
        let payload = format!(
            "{{\"ts\":{ts},\"machine\":\"m{machine:03}\",\"seq\":{seq},\"state\":\"run\",\
             \"air_temperature_K\":{},\"process_temperature_K\":{},\"rotational_speed_rpm\":{},\
             \"torque_Nm\":{},\"vibration_mm_s\":{},\"tool_wear_min\":{}}}",
            digits(state.air_k + random.gauss(0.0, 0.02), 2),
            digits(state.process_k + random.gauss(0.0, 0.02), 2),
            (state.speed_rpm + random.gauss(0.0, 3.0)).round() as i64,
            digits(60_000.0 / state.speed_rpm + random.gauss(0.0, 0.4), 2),
            digits(random.gauss(2.1, 0.25).abs(), 3),
            state.wear_min,
        );
        Reading { topic: Self::topic_of(machine), payload }
    }

    /// Appends the next machine's reading in about 100 bytes (97 to 106); returns the machine.
    pub fn compact(&mut self, out: &mut Vec<u8>) -> usize {
        let (machine, seq, ts) = self.step();
        let random = &mut self.random;
        let state = &self.machines[machine];
        write!(
            out,
            "{{\"ts\":{ts},\"m\":\"m{machine:03}\",\"seq\":{seq},\"air_K\":{},\"prc_K\":{},\
             \"rpm\":{},\"Nm\":{},\"wear\":{}}}",
            digits(state.air_k + random.gauss(0.0, 0.02), 2),
            digits(state.process_k + random.gauss(0.0, 0.02), 2),
            (state.speed_rpm + random.gauss(0.0, 3.0)).round() as i64,
            digits(60_000.0 / state.speed_rpm + random.gauss(0.0, 0.4), 2),
            state.wear_min,
        )
        .expect("writing to a Vec cannot fail");
        machine
    }

    fn step(&mut self) -> (usize, u64, u64) {
        let count = self.machines.len() as u64;
        let machine = (self.turn % count) as usize;
        let seq = self.turn / count;
        let random = &mut self.random;
        let ts = START_MS
            + (self.turn as f64 * 1_000.0 / self.messages_per_second) as u64
            + random.below(3);
        self.turn += 1;
        let state = &mut self.machines[machine];
        state.air_k += random.gauss(0.0, 0.01);
        state.process_k += random.gauss(0.0, 0.01);
        state.speed_rpm += random.gauss(0.0, 2.0) + (1540.0 - state.speed_rpm) * 0.001;
        if random.unit() < 0.0005 {
            state.wear_min = (state.wear_min + 1) % 240;
        }
        (machine, seq, ts)
    }
}

/// A number as Python's `round(value, places)` prints it in JSON: no trailing zeros but one digit.
fn digits(value: f64, places: usize) -> String {
    let mut text = format!("{value:.places$}");
    while text.ends_with('0') && !text.ends_with(".0") {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_have_the_stated_shape_and_size() {
        let mut telemetry = Telemetry::new(64, 1);
        let readings: Vec<Reading> = (0..6_400).map(|_| telemetry.reading()).collect();
        let mean = readings.iter().map(|r| r.payload.len()).sum::<usize>() / readings.len();
        assert!((200..=212).contains(&mean), "{mean}");
        let last: serde_json::Value = serde_json::from_str(&readings[6_399].payload).unwrap();
        assert_eq!(last["machine"], "m063");
        assert_eq!(last["seq"], 99);
        assert_eq!(readings[6_399].topic, "plant/line4/m063/telemetry");
        let torque = last["torque_Nm"].as_f64().unwrap();
        assert!((20.0..80.0).contains(&torque), "{torque}");
    }

    #[test]
    fn compact_readings_are_about_a_hundred_bytes_and_never_two_alike() {
        let mut telemetry = Telemetry::new(1, 9);
        let mut seen = std::collections::HashSet::new();
        let mut total = 0;
        for _ in 0..2_048 {
            let mut payload = Vec::new();
            telemetry.compact(&mut payload);
            serde_json::from_slice::<serde_json::Value>(&payload).unwrap();
            total += payload.len();
            assert!(seen.insert(payload));
        }
        assert!((97..=106).contains(&(total / 2_048)), "{}", total / 2_048);
    }

    #[test]
    fn digits_are_printed_as_gateways_print_them() {
        assert_eq!(digits(298.10, 2), "298.1");
        assert_eq!(digits(298.00, 2), "298.0");
        assert_eq!(digits(2.1234, 3), "2.123");
    }
}
