// Package reloadtest reloads uWSGI as people run it, in every mode and below
// every supervisor known, with qwatch acting, clients asking and a slow request
// in flight, and compares what the audit trail says with what the clients saw.
// It runs only as `make reload-test`; docs/reload.md has its table.
package reloadtest
