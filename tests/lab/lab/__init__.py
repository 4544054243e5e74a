"""Two virtualisation hosts, a witness and a switch on one machine, for tests and the demo. Start at
lab.py."""
