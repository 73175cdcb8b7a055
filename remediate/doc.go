// Package remediate decides what to do about a full accept queue, carries that
// out, and judges from the kernel's numbers whether it helped.
//
// Everything but Runner is a function of values: a facts.Snapshot, Evidence, a
// Diagnosis and the History in, a Plan out. A Runner reaches the host through
// its interfaces only; nothing here does.
package remediate
