"""`doctor`: examines any installation from where the operator sits, and says what to mend."""
