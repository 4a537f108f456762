"""`make demo`: kills a worker in the middle of an agent's execution, and proves that nothing is lost or done twice."""
