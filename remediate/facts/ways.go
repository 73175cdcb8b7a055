package facts

// Ways is what is known of how a master can be asked for a reload.
type Ways struct {
	// Service is the master's unit as systemd knows it, absent where it has none
	// or no systemd runs here.
	Service Fact[Service]
}

// Service is a unit as systemd knows it.
type Service struct {
	MainPID   int  // 0 for none
	CanReload bool // it has ExecReload=, or is of Type=notify-reload
}
