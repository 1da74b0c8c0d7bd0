"""The platform on a real cluster: what a release must bear there, scenario by scenario, with a verdict each.

`python -m tests.cluster [SCENARIO ...]` takes whatever cluster KUBECONFIG names and needs three nodes in three zones.
Faults of nodes and of the Kubernetes API go through one adapter (faults.py); where there is none, those scenarios are
skipped, by name. Everything else goes through kubectl and helm, as an operator of the platform would do it.
"""
