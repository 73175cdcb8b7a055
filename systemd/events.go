package systemd

// The events that matter, as the value of a log line's field "event". Each has
// a message id, by which journalctl finds it and explains it (journalctl -x,
// from qwatch.catalog). A name and its id never change.
const (
	EventIncidentOpened   = "incident-opened"   // a queue is full, again and again
	EventIncidentClosed   = "incident-closed"   // it has been quiet for long enough
	EventRaiseApplied     = "raise-applied"     // an action of a plan was done
	EventPlanRefused      = "plan-refused"      // there was a reason not to act
	EventVerdictFixed     = "verdict-fixed"     // the raise ended the drops
	EventVerdictNoEffect  = "verdict-no-effect" // the raise changed nothing
	EventVerdictWorse     = "verdict-worse"     // it is worse than before the raise
	EventGaveUp           = "gave-up"           // several raises did not help: no more
	EventStartRefused     = "start-refused"     // uWSGI will not start: listen > somaxconn
	EventSourceUnreadable = "source-unreadable" // a log or the journal cannot be read
	EventLinesLost        = "lines-lost"        // lines were destroyed before they were read
	EventConfigReloaded   = "config-reloaded"   // a changed configuration holds now
	EventConfigRefused    = "config-refused"    // it has errors: the old one holds
	EventBootLoses        = "boot-loses"        // another sysctl.d file wins at the next boot
	EventLimitKept        = "limit-kept"        // a raised limit was lost by a restart and raised again
	EventActionRecovered  = "action-recovered"  // an action that was cut off was looked at again
)

// messageIDs are the MESSAGE_ID of each event: 128 random bits in hexadecimal
// (systemd.journal-fields(7)).
var messageIDs = map[string]string{
	EventIncidentOpened:   "96365996edb84089982bee6139865150",
	EventIncidentClosed:   "ce6c006749be4b59aea4ee1a8181b6d3",
	EventRaiseApplied:     "3498132a1f254f949ac5a08636a5648f",
	EventPlanRefused:      "3d081ebab6774fdaa1d474a9e0afb45d",
	EventVerdictFixed:     "13966e6858ab40279c59f8068eeabcce",
	EventVerdictNoEffect:  "8e1e7c2fd69f46cfb9377d81ed430838",
	EventVerdictWorse:     "e261e19bc9374df385e1a1f85da9809d",
	EventGaveUp:           "0df4aef04298454a8c090b28c60d7bbc",
	EventStartRefused:     "1fc738b97f1f4a838e6fc3b6f2c91527",
	EventSourceUnreadable: "c2c9ccd3b55c40b6956e7a392b0cb0b5",
	EventLinesLost:        "e9ed8510fc8e4b13a6d749d83af625a0",
	EventConfigReloaded:   "2f9fae99e5fa476da4a7c882572b3aec",
	EventConfigRefused:    "2aea3f634f874cc2a777e880959f99fa",
	EventBootLoses:        "d2888f0a535440ebb01b8ba38fbb5d2c",
	EventLimitKept:        "464b1c958e734abaa4bba663e8754d99",
	EventActionRecovered:  "efa5a8a59f6b4d79ac517615f2082f4d",
}

// MessageID is the MESSAGE_ID of the event with this name, "" if there is none.
func MessageID(name string) string { return messageIDs[name] }
