"""The engine: owns every effect, and lets none happen before the commit that allows it is durable."""
