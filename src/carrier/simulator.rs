//! stub
/// x
pub struct Simulator;
/// y
pub struct SimulatorSettings;
