"""What the tests of the chart stand on: rendering, the semantics of policies, what is generated beside the chart."""
