"""What two or more services share; imports only go down: runtime, exchange, store, archive, telemetry, flow, marketdata."""
