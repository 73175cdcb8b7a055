// Package remediate decides what to do about a full accept queue, does it
// through an Applier, and judges from the kernel's numbers whether it helped.
//
// Everything but Run and Trail is a function of values: a facts.Snapshot,
// Evidence and History in, a Plan or a Verdict out. No function here touches
// the host.
package remediate
